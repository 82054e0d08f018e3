"""Models of the engine, and what checks them."""
