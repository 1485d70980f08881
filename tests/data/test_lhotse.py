"""Lhotse's cuts and Shar folders, against what Lhotse itself loads."""

import gzip
import json
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import soundfile
import torch

from spintok.data.audio import AudioError, declared_samples, read, record
from spintok.data.locations.addresses import located
from spintok.data.locations.remote import RemoteFile, file_system
from spintok.data.manifest import ManifestError, scan

lhotse = pytest.importorskip("lhotse")


@pytest.fixture
def long(tmp_path: Path) -> Path:
    """8 s of two different channels at 22,050 Hz."""
    samples = np.random.default_rng(0).standard_normal((8 * 22_050, 2)) * 0.1
    soundfile.write(tmp_path / "long.flac", samples, 22_050)
    return tmp_path / "long.flac"


def cuts_of(path: Path) -> Any:
    """A few cuts of a recording: parts of one or both channels, and all of it."""
    recording = lhotse.Recording.from_file(path)
    speech = [lhotse.SupervisionSegment("s", recording.id, 0, 1, channel=0, speaker="ann")]
    mono = [
        lhotse.MonoCut(f"part-{channel}.{start}", start, duration, channel, speech, recording=recording)
        for channel, start, duration in [(0, 0.0, 1.0), (1, 1.23456, 2.34567), (0, 7.5, 0.5)]
    ]
    both = lhotse.MultiCut("both", 2.0, 1.5, [0, 1], recording=recording)
    return lhotse.CutSet.from_cuts([*mono, both, recording.to_cut()])


def expected(cut: Any, folder: Path) -> torch.Tensor:
    """What spintok reads from a file with the samples that Lhotse loads."""
    soundfile.write(folder / "cut.wav", cut.load_audio().T, cut.sampling_rate, subtype="FLOAT")
    return read(folder / "cut.wav")


@pytest.mark.parametrize("name", ["cuts.jsonl", "cuts.jsonl.gz"])
def test_cuts_have_the_samples_that_lhotse_loads(long: Path, tmp_path: Path, name: str) -> None:
    cuts = cuts_of(long)
    cuts.to_file(tmp_path / name)
    found = scan(tmp_path / name)
    assert [u.key for u in found] == list(cuts.ids)
    assert [u.speaker for u in found] == ["ann", "ann", "ann", None, None]
    assert str(found[1].path) == f"cut://1.23456,2.34567,1::{long}"
    assert found[-1].path == long
    for utterance, cut in zip(found, cuts, strict=True):
        audio = read(utterance.path)
        assert torch.equal(audio, expected(cut, tmp_path))
        assert located(str(utterance.path)) == utterance.path
        assert torch.equal(read(str(utterance.path)), audio)
        assert abs(declared_samples(utterance.path) - len(audio)) <= 1
        assert utterance.seconds == cut.duration
        assert torch.equal(torch.cat(list(record(utterance.path, 100).blocks())), audio)


@pytest.mark.parametrize("ending", [".ogg", ".mp3"])
def test_cuts_of_compressed_audio_are_those_of_the_whole(tmp_path: Path, ending: str) -> None:
    """Decoders of these formats do not give the same samples after a seek."""
    path = tmp_path / f"long{ending}"
    soundfile.write(path, np.random.default_rng(0).standard_normal(16_000 * 4) * 0.1, 16_000)
    assert torch.equal(read(f"cut://1.5,2.0::{path}"), read(path)[24_000:56_000])


def test_recordings_elsewhere_are_copied_once_for_all_their_cuts(
    long: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file_system.cache_clear()
    store = fsspec.filesystem("memory")
    store.pipe("/corpus/wavs/long.flac", long.read_bytes())
    cuts = cuts_of(long)
    lines = [cut.to_dict() for cut in cuts]
    for line in lines:
        line["recording"]["sources"][0] |= {"type": "url", "source": "memory://corpus/wavs/long.flac"}
    lines[1]["recording"]["sources"][0] |= {"type": "file", "source": "wavs/long.flac"}
    store.pipe("/corpus/cuts.jsonl.gz", gzip.compress("\n".join(map(json.dumps, lines)).encode()))
    copies = []
    copy = RemoteFile.local
    monkeypatch.setattr(RemoteFile, "local", lambda self: (copies.append(self.url), copy(self))[1])
    found = scan("memory://corpus/cuts.jsonl.gz")
    for utterance, cut in zip(found, cuts, strict=True):
        assert torch.equal(read(utterance.path), expected(cut, tmp_path))
    assert copies == ["memory://corpus/wavs/long.flac"] * 2  # the last is the recording itself
    store.store.clear()


@pytest.mark.parametrize("where", ["local", "memory"])
def test_shar_folders_are_read_in_place(long: Path, tmp_path: Path, where: str) -> None:
    cuts = cuts_of(long)
    shar = tmp_path / "shar"
    shar.mkdir()
    cuts.to_shar(shar, fields={"recording": "wav"}, shard_size=2)
    assert sorted(path.name for path in shar.iterdir())[::3] == ["cuts.000000.jsonl.gz", "recording.000000.tar"]
    source = str(shar)
    if where == "memory":
        file_system.cache_clear()
        fsspec.filesystem("memory").put(source, "/shar", recursive=True)
        source = "memory://shar"
    found = scan(source)
    assert [u.key for u in found] == list(cuts.ids)
    assert [u.speaker for u in found] == ["ann", "ann", "ann", None, None]
    assert str(found[3].path) == f"tar://both.wav::{source}/recording.000001.tar"
    for utterance, cut in zip(found, cuts, strict=True):
        assert torch.equal(read(utterance.path), expected(cut, tmp_path))
    if where == "local":
        (shar / "recording.000002.tar").unlink()
        with pytest.raises(ManifestError, match=r"shar/cuts.000002.jsonl.gz:1: there is no recording.000002.tar"):
            scan(shar)
        with pytest.raises(ManifestError, match="name the folder, which has their audio too"):
            scan(shar / "cuts.000000.jsonl.gz")


def test_recordings_are_a_list_too(long: Path, tmp_path: Path) -> None:
    recordings = lhotse.RecordingSet.from_recordings([lhotse.Recording.from_file(long)])
    recordings.to_file(tmp_path / "recordings.jsonl.gz")
    (found,) = scan(tmp_path / "recordings.jsonl.gz")
    assert (found.key, found.path, found.seconds) == ("long", long, 8.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"type": "MixedCut"}, "a MixedCut has no audio of its own"),
        ({"recording": None}, "has no recording"),
        ({"duration": "x"}, "could not convert string to float"),
        ({"duration": -1.0}, "a part cannot start at 0.0 s and take -1.0 s"),
        ({"channel": 5}, r"channels \[5\] of the recording 'long' are not in one file"),
        ({"id": None, "recording": {}}, "'sources'"),
    ],
)
def test_cuts_that_are_no_part_of_a_file_are_one_line(
    long: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    line = cuts_of(long)[0].to_dict() | change
    (tmp_path / "cuts.jsonl").write_text(json.dumps(line))
    with pytest.raises(ManifestError, match=rf"cuts.jsonl:1: .*{message}"):
        scan(tmp_path / "cuts.jsonl")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"transforms": [{"name": "Speed"}]}, "has effects"),
        ({"sources": [{"type": "command", "channels": [0], "source": "sox"}]}, "of type 'command'"),
    ],
)
def test_recordings_that_are_computed_are_one_line(
    long: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    line = cuts_of(long)[0].to_dict()
    line["recording"] |= change
    (tmp_path / "cuts.jsonl").write_text(json.dumps(line))
    with pytest.raises(ManifestError, match=rf"cuts.jsonl:1: .*{message}"):
        scan(tmp_path / "cuts.jsonl")


def test_a_cut_beyond_the_end_fails(long: Path) -> None:
    with pytest.raises(AudioError, match=r"is cut short: 22050 of 44100 samples of this part"):
        read(f"cut://7.0,2.0::{long}")
    with pytest.raises(AudioError, match="channel 2 is wanted, from 0, and the file has 2"):
        read(f"cut://1.0,2.0,2::{long}")
