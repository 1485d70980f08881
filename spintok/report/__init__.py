"""Self-contained HTML pages of a token folder or of a recording."""

from spintok.report.corpus import corpus_report
from spintok.report.recording import recording_report

__all__ = ["corpus_report", "recording_report"]
