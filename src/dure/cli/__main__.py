"""`python -m dure.cli`."""

from dure.cli import main

main()
