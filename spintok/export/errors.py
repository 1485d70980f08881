"""What goes wrong in an export."""

__all__ = ["ExportError"]


class ExportError(ValueError):
    """Input that cannot be exported as asked; the message is one line and says how to go on."""
