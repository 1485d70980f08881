"""``python -m spintok`` is ``spintok``."""

from spintok.cli import main

main()
