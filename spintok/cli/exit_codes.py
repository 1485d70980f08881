"""Exit codes of the command line."""

__all__ = ["FAILED", "INTERRUPTED", "USAGE"]

FAILED = 1
"""The command ran to its end, but some files could not be processed."""

USAGE = 2
"""The command could not run: a wrong argument, file or setting."""

INTERRUPTED = 130
"""Ctrl-C or SIGTERM stopped the command."""
