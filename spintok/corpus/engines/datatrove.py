"""datatrove: a step that adds tokens to the documents of a pipeline, on any of its executors."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

from spintok._files import require
from spintok.corpus.engines.rows import RowEncoder

require("datatrove", extra="datatrove", purpose="this step")

from datatrove.data import Document  # noqa: E402
from datatrove.pipeline.base import PipelineStep  # noqa: E402

__all__ = ["SpeechTokens"]


class SpeechTokens(PipelineStep):
    """Adds to ``document.metadata`` what token folders hold.

    These are ``units`` and ``duration`` (lists of integers; more for further codebooks), ``num_samples``,
    ``num_frames``, and ``error``, None but for recordings that cannot be used. The statistics count ``recordings``,
    ``failed`` and ``frames``.

    Args:
        field: the field of the metadata that holds a path, or the contents of an audio file; by default the audio is
            the first of ``document.media``: its bytes, path or address.
        batch_size: documents that are encoded together.
        **options: of ``spintok.corpus.engines.rows.RowEncoder``: ``tokenizer``, ``codebook``, ``dedup``, ``device``,
            ``latency``, ``batch_seconds``, ``threads``.
    """

    name = "Speech tokens"
    type = "TOKENIZER"

    def __init__(self, field: str | None = None, batch_size: int = 64, **options: Any) -> None:
        super().__init__()
        self.field = field
        self.batch_size = batch_size
        self.options = options

    def run(self, data: Iterator[Document], rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """The documents in their order, with tokens; ``rank`` and ``world_size`` are the reader's concern.

        Raises:
            ValueError: a document has no audio.
        """
        documents = iter(data)
        # The tokenizer is loaded where the step runs, not where the pipeline is written.
        encode = RowEncoder(**self.options)
        while batch := list(islice(documents, self.batch_size)):
            with self.track_time(unit="batch"):
                rows = encode([self._audio(document) for document in batch])
            for document, row in zip(batch, rows, strict=True):
                document.metadata |= row | {name: row[name].tolist() for name in encode.arrays}
                self.stat_update("recordings")
                self.stat_update("frames", value=row["num_frames"])
                if row["error"] is not None:
                    self.stat_update("failed")
                yield document

    def _audio(self, document: Document) -> Any:
        if self.field is not None:
            if document.metadata.get(self.field) is None:
                raise ValueError(f"document {document.id!r} has no {self.field!r} in its metadata")
            return document.metadata[self.field]
        if not document.media:
            raise ValueError(f"document {document.id!r} has no media: name the field of its metadata with audio")
        media = document.media[0]
        if media.media_bytes is not None:
            return {"bytes": media.media_bytes, "path": media.path or media.url}
        return media.path or media.url
