"""`python -m quinze.cli` is `quinze`."""

from quinze.cli.main import main

main()
