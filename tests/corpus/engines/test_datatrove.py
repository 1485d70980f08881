"""datatrove, the real one: a pipeline on its local executor."""

from pathlib import Path

import pytest

pytest.importorskip("datatrove")

from datatrove.data import Document, Media, MediaType
from datatrove.executor import LocalPipelineExecutor

from spintok.corpus.engines.datatrove import SpeechTokens

pytestmark = [
    # loguru and multiprocess leave their files to the end of the process.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]


def test_a_pipeline(mfcc, recordings, tmp_path: Path) -> None:
    (tmp_path / "bad.wav").write_bytes(b"no audio")
    paths = [*(u.path for u in recordings), tmp_path / "bad.wav"]
    documents = [Document("", str(number), metadata={"path": str(path)}) for number, path in enumerate(paths)]
    found = []

    def keep(data, rank, world_size):
        for document in data:
            found.append(document)
            yield document

    step = SpeechTokens("path", batch_size=4, tokenizer=mfcc, device="cpu")
    stats = LocalPipelineExecutor([documents, step, keep], logging_dir=str(tmp_path / "logs")).run()
    assert [document.id for document in found] == [str(number) for number in range(6)]
    for document, utterance in zip(found, recordings, strict=False):
        tokens = mfcc.encode(utterance.path)
        wanted = (tokens.units.tolist(), tokens.durations.tolist(), tokens.num_samples, tokens.num_frames, None)
        fields = ("units", "duration", "num_samples", "num_frames", "error")
        assert tuple(document.metadata[field] for field in fields) == wanted
    assert (found[5].metadata["units"], "bad.wav" in found[5].metadata["error"]) == ([], True)
    counted = stats.stats[0].stats
    assert (counted["recordings"].total, counted["failed"].total) == (6, 1)


def test_audio_of_media(mfcc, recordings) -> None:
    path = recordings[0].path
    expected = mfcc.encode(path).codes.tolist()
    media = [
        Media("a", MediaType.AUDIO, "", media_bytes=path.read_bytes()),
        Media("b", MediaType.AUDIO, "", path=str(path)),
        Media("c", MediaType.AUDIO, str(path)),
    ]
    documents = (Document("", one.id, media=[one]) for one in media)
    step = SpeechTokens(tokenizer=mfcc, dedup=False)
    assert [document.metadata["units"] for document in step(documents)] == [expected] * 3
    with pytest.raises(ValueError, match="'d' has no media"):
        list(step([Document("", "d")]))
    with pytest.raises(ValueError, match="'d' has no 'path'"):
        list(SpeechTokens("path", tokenizer=mfcc)([Document("", "d")]))
