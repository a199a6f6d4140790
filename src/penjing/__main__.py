"""`python -m penjing` is the command `penjing`."""

from penjing.cli import main

main()
