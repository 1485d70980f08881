"""The error of the export package."""

__all__ = ["ExportError"]


class ExportError(ValueError):
    """The input cannot be exported as asked; the message is one line that says what to change."""
