"""Through a real PgBouncer in transaction mode."""
