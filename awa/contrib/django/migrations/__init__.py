"""Django's record that the awa schema is there; the SQL is `awa migrate`'s."""
