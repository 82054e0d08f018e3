"""The `awa` command. click and rich live here and nowhere else."""
