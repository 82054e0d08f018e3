"""Orders and their shipments."""
