"""``python -m spintok`` runs the same command line as ``spintok``."""

from spintok.cli import main

main()
