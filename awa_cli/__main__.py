"""`python -m awa_cli`."""

from awa_cli.main import main

main()
