"""NeMo Curator: a stage that adds tokens to audio tasks."""

from typing import Any

from spintok._files import require
from spintok.corpus.engines.rows import RowEncoder
from spintok.loading import load
from spintok.tokenizer import Tokenizer

require("nemo_curator", extra="nemo-curator", purpose="this stage")

from nemo_curator.stages.base import ProcessingStage  # noqa: E402
from nemo_curator.stages.resources import Resources  # noqa: E402
from nemo_curator.tasks import AudioTask  # noqa: E402

__all__ = ["SpeechTokenStage"]


class SpeechTokenStage(ProcessingStage[AudioTask, AudioTask]):
    """Adds to ``task.data`` what token folders hold.

    These are ``units`` and ``duration`` (lists of integers; more for further codebooks), ``num_samples``,
    ``num_frames``, and ``error``, None but for recordings that cannot be used. Tokens are a function of the recording,
    so a task that is done twice gives the same.

    For a GPU: ``SpeechTokenStage().with_(resources=Resources(gpus=1.0))``.

    Args:
        field: the field of ``task.data`` with the path of the recording.
        **options: of ``spintok.corpus.engines.rows.RowEncoder``: ``tokenizer``, ``codebook``, ``dedup``, ``device``,
            ``latency``, ``batch_seconds``, ``threads``.
    """

    name = "spintok"
    resources = Resources(cpus=1.0)
    batch_size = 64

    def __init__(self, field: str = "audio_filepath", **options: Any) -> None:
        self.field = field
        self.options = options
        self._encode: RowEncoder | None = None

    def inputs(self) -> tuple[list[str], list[str]]:
        """The attribute of a task that must be there, and the fields of its data."""
        return ["data"], [self.field]

    def outputs(self) -> tuple[list[str], list[str]]:
        """The fields that every tokenizer gives; the names of further ones depend on its codebooks."""
        return ["data"], ["num_samples", "num_frames", "error"]

    def setup_on_node(self, node_info: Any = None, worker_metadata: Any = None) -> None:
        """Download the tokenizer once, if it has to be."""
        tokenizer = self.options.get("tokenizer")
        if not isinstance(tokenizer, Tokenizer):
            load(tokenizer)

    def setup(self, worker_metadata: Any = None) -> None:
        """Load the tokenizer."""
        self._encode = RowEncoder(**self.options)

    def process(self, task: AudioTask) -> AudioTask:
        """One task with its tokens."""
        return self.process_batch([task])[0]

    def process_batch(self, tasks: list[AudioTask]) -> list[AudioTask]:
        """The tasks with their tokens.

        Raises:
            ValueError: a task does not name its recording.
        """
        for task in tasks:
            if not self.validate_input(task):
                raise ValueError(f"task {task.task_id!r} has no {self.field!r}: name the field of its path by field=")
        if self._encode is None:
            self.setup()
        assert self._encode is not None
        rows = self._encode([task.data[self.field] for task in tasks])
        for task, row in zip(tasks, rows, strict=True):
            task.data.update(row | {name: row[name].tolist() for name in self._encode.arrays})
        return tasks
