"""`awa bench`: the product measured through its public API, in processes of their own."""
