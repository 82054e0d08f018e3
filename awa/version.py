"""The release, written once: packaging reads it from here, and the migrator stamps it into the database."""

__version__ = "0.1.0"
