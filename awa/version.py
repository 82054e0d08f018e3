"""The release, written once: packaging reads it from here, and the migrator stamps it into the database."""

from typing import Final

__version__: Final = "0.1.0"
