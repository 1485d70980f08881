"""NeMo Curator, the real one, where it is installed: a pipeline on Ray Data."""

from pathlib import Path

import pytest

pytest.importorskip("nemo_curator")

from nemo_curator.backends.ray_data import RayDataExecutor
from nemo_curator.pipeline import Pipeline
from nemo_curator.tasks import AudioTask

from spintok.corpus.engines.nemo_curator import SpeechTokenStage

pytestmark = [
    pytest.mark.usefixtures("ray_cluster"),
    pytest.mark.filterwarnings("default"),
]


def test_a_pipeline(recordings, tmp_path: Path, monkeypatch) -> None:
    import spintok

    monkeypatch.setenv("RAY_ADDRESS", "auto")
    tokenizer = spintok.load("mfcc-kmeans-100")
    (tmp_path / "bad.wav").write_bytes(b"no audio")
    paths = [*(str(u.path) for u in recordings), str(tmp_path / "bad.wav")]
    tasks = [AudioTask(task_id=str(n), data={"audio_filepath": path}) for n, path in enumerate(paths)]
    stage = SpeechTokenStage(tokenizer="mfcc-kmeans-100", device="cpu")
    found = Pipeline(name="tokens", stages=[stage]).run(RayDataExecutor(), initial_tasks=tasks)
    rows = {task.data["audio_filepath"]: task.data for task in found}
    assert rows.keys() == set(paths)
    for path in paths[:-1]:
        tokens, row = tokenizer.encode(path), rows[path]
        assert (row["units"], row["duration"]) == (tokens.units.tolist(), tokens.durations.tolist())
        assert (row["num_samples"], row["num_frames"], row["error"]) == (tokens.num_samples, tokens.num_frames, None)
    assert "bad.wav" in rows[paths[-1]]["error"]


def test_a_stage_alone(mfcc, recordings) -> None:
    stage = SpeechTokenStage("path", tokenizer=mfcc)
    stage.setup_on_node()
    task = stage.process(AudioTask(task_id="a", data={"path": str(recordings[0].path)}))
    assert task.data["units"] == mfcc.encode(recordings[0].path).units.tolist()
    with pytest.raises(ValueError, match="'b' has no 'path'"):
        stage.process(AudioTask(task_id="b", data={}))
