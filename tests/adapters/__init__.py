"""Other people's connections: frameworks, drivers, poolers."""
