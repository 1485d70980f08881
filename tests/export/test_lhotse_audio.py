"""Lhotse loads the audio of exported cuts, wherever spintok had read it."""

import tarfile
import warnings
from collections.abc import Sequence
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import soundfile

from spintok.corpus.token_formats import Record
from spintok.data.manifest import scan
from spintok.export.errors import ExportError
from spintok.export.targets import export_files, read_export
from spintok.frames import num_frames
from spintok.tokens import Tokens
from tests.export.token_folders import runs, write_folder

pytestmark = [
    # Lhotse leaves it to the garbage collector to close what it reads.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    # botocore's own.
    pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning"),
]


def loaded(out: Path, **options: object) -> dict[str, np.ndarray]:
    """The audio of an export, as Lhotse loads it, and its codes, which have to belong to it."""
    lhotse = pytest.importorskip("lhotse")
    found = {}
    for cut in lhotse.CutSet.from_shar(in_dir=out / "shar"):
        samples = found[cut.id] = cut.load_audio()
        assert samples.shape == (cut.num_channels, round(cut.duration * cut.sampling_rate))
        assert cut.load_codes().size == round(cut.duration * 50)
        part = cut.truncate(offset=0.1, duration=0.2)
        np.testing.assert_array_equal(part.load_codes(), cut.load_codes()[5:15])
        first, count = (round(seconds * cut.sampling_rate) for seconds in (0.1, 0.2))
        np.testing.assert_array_equal(part.load_audio(), samples[:, first : first + count])
    return found


def encoded(names: Sequence[str], samples: Sequence[int]) -> list[Record]:
    """Records of random codes for audio of so many samples at 16 kHz."""
    rng = np.random.default_rng(2)
    return [
        Record(f"{number}", name, {"primary": Tokens(runs(rng, 100, num_frames(count)), 100, count)}, "beth")
        for number, (name, count) in enumerate(zip(names, samples, strict=True))
    ]


@pytest.fixture
def packed_audio(tmp_path: Path) -> dict[str, np.ndarray]:
    """Addresses of the same recordings alone, in a tar and in a Parquet file, of parts of them, and their samples."""
    import pyarrow as pa
    from pyarrow import parquet

    rng, rows, found = np.random.default_rng(0), [], {}
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for number, (rate, subtype) in enumerate([(16_000, "PCM_16"), (44_100, "FLOAT"), (8_000, "PCM_24")]):
            path = tmp_path / f"{number}.wav"
            soundfile.write(path, rng.uniform(-0.5, 0.5, (rate, 1 + number)), rate, subtype=subtype)
            samples = soundfile.read(path, dtype="float32", always_2d=True)[0].T
            tar.add(path, path.name)
            rows.append({"bytes": path.read_bytes(), "path": path.name})
            found[str(path)] = found[f"tar://{number}.wav::{tmp_path}/a.tar"] = samples
            found[f"parquet://{number}/audio::{tmp_path}/a.parquet"] = samples
            for whole in (path, f"tar://{number}.wav::{tmp_path}/a.tar"):
                found[f"cut://0.25,0.5,{number}::{whole}"] = samples[number:, rate // 4 : rate // 4 + rate // 2]
    parquet.write_table(pa.table({"audio": rows}), tmp_path / "a.parquet")
    return found


def test_lhotse_loads_audio_that_is_packed_or_a_part(packed_audio, tmp_path, same):
    names = list(packed_audio)
    lengths = [8_000 if name.startswith("cut://") else 16_000 for name in names]
    records = encoded(names, lengths)
    folder = write_folder(tmp_path / "tokens", records[1:] + records[:1])
    summary = export_files([folder], tmp_path / "out", "lhotse", shard_size=4)
    assert [note.partition(" (")[0] for note in summary.notes] == ["12 recordings"]
    found = loaded(tmp_path / "out")
    for record in records:
        expected = packed_audio[record.file_name]
        np.testing.assert_array_equal(found[record.key], expected[:, : found[record.key].shape[1]])
        assert expected.shape[1] - found[record.key].shape[1] < expected.shape[1] / 20
    same(list(read_export(tmp_path / "out")[1]), records[1:] + records[:1])
    assert any("recording." in path.name for path in summary.files)
    # What is copied can be encoded again.
    assert len(scan(tmp_path / "out/shar")) == len(records)


def test_lhotse_needs_copies_in_all_shards_or_none(packed_audio, tmp_path):
    records = encoded(list(packed_audio), [16_000] * len(packed_audio))
    plain = [record for record in records if "::" not in record.file_name]
    packed = [record for record in records if record.file_name.startswith("tar://")]
    plain_folder, packed_folder = write_folder(tmp_path / "plain", plain), write_folder(tmp_path / "packed", packed)
    with pytest.raises(ExportError, match=r"^tar://0.wav::.*name the token folder of such audio first"):
        export_files([plain_folder, packed_folder], tmp_path / "out", "lhotse", shard_size=3)
    export_files([packed_folder, plain_folder], tmp_path / "out", "lhotse", shard_size=3, overwrite=True)
    assert len(loaded(tmp_path / "out")) == 6


def test_lhotse_opens_addresses(packed_audio, tmp_path):
    pytest.importorskip("smart_open")
    quiet = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(quiet, directory=tmp_path)) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            root = f"http://127.0.0.1:{server.server_address[1]}"
            records = encoded([f"{root}/{number}.wav" for number in range(3)], [16_000] * 3)
            folder = write_folder(tmp_path / "tokens", records)
            summary = export_files([folder], tmp_path / "out", "lhotse")
            assert summary.notes == ["3 cuts name addresses, which Lhotse opens if smart_open is installed"]
            with warnings.catch_warnings():
                # Of parts that are downloaded whole.
                warnings.simplefilter("ignore")
                found = loaded(tmp_path / "out")
        finally:
            server.shutdown()
            thread.join()
    for number in range(3):
        samples = found[f"{number}"]
        np.testing.assert_array_equal(samples, packed_audio[f"{tmp_path}/{number}.wav"][:, : samples.shape[1]])


def test_lhotse_gets_the_layout_of_audio_on_an_object_store(server, packed_audio, tmp_path):
    lhotse = pytest.importorskip("lhotse")
    server.objects["bucket/a.wav"] = (tmp_path / "1.wav").read_bytes()
    folder = write_folder(tmp_path / "tokens", encoded(["s3://bucket/a.wav"], [16_000]))
    export_files([folder], tmp_path / "out", "lhotse")
    (cut,) = lhotse.CutSet.from_shar(in_dir=tmp_path / "out/shar")
    assert (cut.sampling_rate, cut.num_channels) == (44_100, 2)
    (source,) = cut.recording.sources
    assert (source.type, source.source) == ("url", "s3://bucket/a.wav")
