"""How each verb of `sql/` is called. The caller's connection comes first, and the caller owns the transaction."""
