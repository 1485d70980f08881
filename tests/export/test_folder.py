"""The folder of an export: what may be resumed, replaced and deleted, and what is noticed in a damaged one."""

import json
from pathlib import Path

import numpy as np
import pytest

from spintok._files import lock
from spintok.corpus.token_formats import Record
from spintok.export import ExportError, Vocabulary, export_bpe, export_files, export_packed, read_export, read_packed
from spintok.export.sidecar import read_sidecar
from spintok.export.targets import FILE_TARGETS
from spintok.tokens import Tokens
from tests.export.token_folders import make_records, write_folder

# Lhotse and WebDataset leave it to the garbage collector to close what they read.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

EMPTY = Record("nothing", "/data/nothing.wav", {"primary": Tokens(np.array([], dtype=int), 100, 10)})


def change(folder: Path, **fields: object) -> None:
    path = folder / "spintok.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("target", FILE_TARGETS)
@pytest.mark.parametrize("first", [0, 20])
def test_a_failed_export_does_not_block_the_corrected_command(target, first, tmp_path, records) -> None:
    """The empty utterance is met at once, or after two complete shards."""
    folder = write_folder(tmp_path / "tokens", [*records[:first], EMPTY, *records[first:]])
    with pytest.raises(ExportError, match="add --skip-empty"):
        export_files([folder], tmp_path / "out", target, shard_size=8)
    assert export_files([folder], tmp_path / "out", target, shard_size=8, skip_empty=True).utterances == len(records)
    fresh = export_files([folder], tmp_path / "fresh", target, shard_size=8, skip_empty=True)
    assert files(tmp_path / "out") == files(tmp_path / "fresh")
    assert len(list(read_export(tmp_path / "out")[1])) == fresh.utterances


def test_a_failed_export_leaves_no_new_folder_and_an_old_one_as_it_was(tmp_path, records) -> None:
    folder = write_folder(tmp_path / "tokens", [EMPTY, *records])
    (tmp_path / "empty").mkdir()
    for export in (
        lambda out: export_files([folder], out, "lhotse"),
        lambda out: export_packed([folder], out, shuffle=1),
        lambda out: export_bpe([folder], out, [101]),
    ):
        for name in ("new", "empty"):
            with pytest.raises(ExportError, match="add --skip-empty"):
                export(tmp_path / name)
            assert (tmp_path / name).exists() is (name == "empty")
            assert not files(tmp_path) - {f"tokens/{name}" for name in files(folder)}


def test_an_interrupted_export_is_resumed_by_the_same_and_replaced_by_another(folder, tmp_path) -> None:
    out = tmp_path / "out"
    export_files([folder], out, "npz", shard_size=7)
    change(out, state="writing")
    times = {path.name: path.stat().st_mtime_ns for path in out.glob("tokens*")}
    (out / "mine.txt").write_text("x")
    export_files([folder], out, "npz", shard_size=7)
    assert times == {path.name: path.stat().st_mtime_ns for path in out.glob("tokens*")}
    change(out, state="writing")
    export_files([folder], out, "npz", shard_size=20)
    assert files(out) == {"tokens-00000.npz", "tokens-00001.npz", "README.md", "spintok.json", "mine.txt"}


def test_files_in_a_forged_sidecar_are_not_deleted(folder, tmp_path) -> None:
    out, victims = tmp_path / "out", []
    export_files([folder], out, "npz")
    (tmp_path / "elsewhere").mkdir()
    (out / "shar").symlink_to(tmp_path / "elsewhere")
    for place in ("victim", "tokens.npz", "elsewhere/cuts.000000.tar", "out/thesis.tex", "out/train.py"):
        victims.append(tmp_path / place)
        victims[-1].write_text("mine")
    forged = [
        "../victim",
        "../tokens.npz",
        str(tmp_path / "tokens.npz"),
        "shar/cuts.000000.tar",
        "thesis.tex",
        "train.py",
    ]
    change(out, files=dict.fromkeys([*forged, "tokens-00000.npz"], 4))
    for state in ("complete", "writing"):
        change(out, state=state)
        export_files([folder], out, "gslm", overwrite=True)
        assert [path.read_text() for path in victims] == ["mine"] * len(victims)
        assert not (out / "tokens-00000.npz").exists()
        change(out, files=dict.fromkeys(forged, 4))


def test_the_output_is_a_folder(folder, tmp_path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ExportError, match="file: not a folder"):
        export_files([folder], tmp_path / "file", "gslm", overwrite=True)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("content", ["{}", "[]", '{"files": {"a": 1}}', "", "nonsense"])
def test_a_folder_is_ours_only_if_it_says_so(folder, tmp_path, content) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "spintok.json").write_text(content)
    (out / "tokens.txt").write_text("mine")
    with pytest.raises(ExportError, match="spintok.json: (not a sidecar|damaged)"):
        export_files([folder], out, "gslm", overwrite=True)
    assert (out / "tokens.txt").read_text() == "mine"


@pytest.mark.parametrize(
    "fields",
    [
        {"codebooks": {"primary": 10**30}},
        {"codebooks": {"primary": "100"}},
        {"codebooks": {}},
        {"frame_rate": 0},
        {"dedup": 1},
        {"files": ["tokens-00000.npz"]},
        {"files": {"tokens-00000.npz": None}},
        {"sha256": {"tokens-00000.npz": 7}},
        {"target": ["npz"]},
        {"options": None},
    ],
)
def test_sidecars_with_wrong_types_are_refused(folder, tmp_path, fields) -> None:
    export_files([folder], tmp_path / "out", "npz")
    change(tmp_path / "out", **fields)
    with pytest.raises(ExportError, match=r"spintok.json: damaged \(") as caught:
        read_export(tmp_path / "out")
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("form", [None, "singing", ["units"]])
def test_packed_options_that_are_damaged(folder, tmp_path, form) -> None:
    export_packed([folder], tmp_path / "out")
    change(tmp_path / "out", options={} if form is None else {"form": form})
    with pytest.raises(ExportError, match="damaged \\(form is"):
        read_packed(tmp_path / "out")


@pytest.mark.parametrize("value", ["[" * 100_000 + "]" * 100_000, "9" * 5000])
def test_hostile_json_is_one_line(folder, tmp_path, value) -> None:
    export_files([folder], tmp_path / "out", "npz")
    (tmp_path / "out/spintok.json").write_text(f'{{"spintok_export": {value}}}')
    with pytest.raises(ExportError, match="spintok.json: damaged"):
        read_sidecar(tmp_path / "out")
    Vocabulary("t", "f", {"primary": 5}).save(tmp_path / "v.json")
    text = (tmp_path / "v.json").read_text()
    for old in ('"first_id": 0', '"primary": 5', '"spintok_vocabulary": 1'):
        (tmp_path / "v.json").write_text(text.replace(old, f"{old.partition(':')[0]}: {value}"))
        with pytest.raises(ExportError, match="v.json: not a vocabulary"):
            Vocabulary.load(tmp_path / "v.json")
    (tmp_path / "v.json").write_text(text.replace('"durations": 0', '"durations": 1000000000000'))
    with pytest.raises(ExportError, match="v.json: not a vocabulary"):
        Vocabulary.load(tmp_path / "v.json")


@pytest.mark.parametrize("target", [*FILE_TARGETS, "packed"])
def test_a_flipped_bit_in_any_file_is_noticed(target, folder, tmp_path) -> None:
    out = tmp_path / "out"
    if target == "packed":
        export_packed([folder], out)
    else:
        export_files([folder], out, target)
    read = read_packed if target == "packed" else read_export
    description = read_sidecar(out)
    data = [name for name in description["files"] if not name.endswith(".md")]
    # The shards of sharded targets are checked one by one, all other files at once.
    for name in data:
        path = out / name
        whole = path.read_bytes()
        path.write_bytes(whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:])
        with pytest.raises(ExportError, match=f"{path.name}: changed since it was exported"):
            list(read(out)[1])
        path.write_bytes(whole)
    assert len(list(read(out)[1])) == 24


@pytest.mark.parametrize("target", FILE_TARGETS)
def test_damage_without_checksums_is_one_error(target, folder, tmp_path) -> None:
    """Exports of earlier releases have no checksums."""
    out = tmp_path / "out"
    export_files([folder], out, target)
    rng = np.random.default_rng(0)
    for name in [name for name in read_sidecar(out)["files"] if not name.endswith(".md")]:
        whole = (out / name).read_bytes()
        for _ in range(8):
            damaged = bytearray(whole)
            start = int(rng.integers(len(whole)))
            damaged[start : start + 40] = rng.bytes(len(damaged[start : start + 40]))
            (out / name).write_bytes(damaged)
            change(out, sha256={})
            try:
                list(read_export(out)[1])
            except ExportError as error:
                assert "\n" not in str(error)  # noqa: PT017
        (out / name).write_bytes(whole)


@pytest.mark.parametrize("duration", [2**31 - 1, 10**12])
def test_a_damaged_duration_allocates_nothing(duration, folder, tmp_path) -> None:
    out = tmp_path / "out"
    export_files([folder], out, "slamkit")
    lines = (out / "tokens.jsonl").read_text().splitlines()
    row = json.loads(lines[0])
    row["duration"][0] = duration
    (out / "tokens.jsonl").write_text("\n".join([json.dumps(row), *lines[1:]]) + "\n")
    change(out, sha256={}, files={"tokens.jsonl": (out / "tokens.jsonl").stat().st_size})
    with pytest.raises(ExportError, match=r"damaged \(runs of \d+ frames in a recording of \d+ samples\)"):
        list(read_export(out)[1])


def test_a_folder_that_is_being_written_is_refused(folder, tmp_path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    # Locks belong to open files, so it does not matter which process holds this one.
    with lock(out / ".lock"), pytest.raises(ExportError, match="another process is exporting to this folder"):
        export_files([folder], out, "npz")
    assert export_files([folder], out, "npz").utterances == 24


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\u0085", "\x0b", "\x0c", "\x1c"])
def test_keys_with_line_separators_of_unicode(separator, tmp_path, same) -> None:
    records = [
        Record(f"a{separator}{r.key}", f"/d/b{separator}{r.key}.wav", r.tokens, f"s{separator}")
        for r in make_records(2)
    ]
    folder = write_folder(tmp_path / "tokens", records)
    for target in FILE_TARGETS:
        export_files([folder], tmp_path / target, target)
        same(list(read_export(tmp_path / target)[1]), records)
    export_packed([folder], tmp_path / "packed")
    same(list(read_packed(tmp_path / "packed")[1]), records)


@pytest.mark.parametrize("target", [*FILE_TARGETS, "packed"])
def test_names_that_are_not_utf8(target, tmp_path, same) -> None:
    """Python gives the bytes of such names as lone surrogates."""
    records = [
        Record(f"\udcff{record.key}", f"/d/\udcff{record.key}.wav", record.tokens, "s\udcfe")
        for record in make_records(2)
    ]
    folder, out = write_folder(tmp_path / "tokens", records), tmp_path / "out"
    if target == "packed":
        export_packed([folder], out, split_by="speaker")
        same(list(read_packed(out)[1]), records)
    elif target in ("parquet", "lhotse"):
        with pytest.raises(ExportError, match=r"'\\udcffa b-0': this format cannot hold names that are not UTF-8"):
            export_files([folder], out, target)
        assert not out.exists()
    else:
        export_files([folder], out, target)
        same(list(read_export(out)[1]), records)


EXPECTED = {
    "slamkit": ["file_name", "units", "duration"],
    "s3tokenizer": ["key", "code"],
    "gslm": ["text"],
    "parquet": ["key", "file_name", "speaker", "num_samples", "units", "duration"],
    "webdataset": ["json", "units.npy", "duration.npy", "__key__", "__url__"],
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("target", [*FILE_TARGETS, "packed"])
def test_datasets_opens_the_folder_itself(target, folder, tmp_path, monkeypatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr("datasets.config.HF_DATASETS_OFFLINE", True)
    out = tmp_path / "out"
    if target == "packed":
        export_packed([folder], out)
    else:
        export_files([folder], out, target)
    if target in EXPECTED:
        found = datasets.load_dataset(str(out), cache_dir=str(tmp_path / "cache"))["train"]
        assert found.num_rows == 24
        assert sorted(found.column_names) == sorted(EXPECTED[target])
    elif target == "lhotse":
        # Each row is a cut, as Lhotse writes it.
        assert datasets.load_dataset(str(out), cache_dir=str(tmp_path / "cache"))["train"].num_rows == 24
    else:
        # datasets has no reader for these, and must not take the sidecar for the data.
        with pytest.raises(FileNotFoundError):
            datasets.load_dataset(str(out), cache_dir=str(tmp_path / "cache"))
