import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from spintok.train.batching import array_file
from spintok.train.batching.array_file import ArrayFile

ARRAYS = [np.arange(n * 3, dtype=np.float32).reshape(n, 3) for n in (2, 0, 5, 4)]


def after(count: int) -> list[list[np.ndarray]]:
    """The arrays after ``count`` of them, the third in two pieces."""
    return [[array[:3], array[3:]] for array in ARRAYS[count:]]


def test_arrays_come_back(tmp_path) -> None:
    assert not ArrayFile.exists(tmp_path / "p")
    packed = pickle.loads(pickle.dumps(ArrayFile.write(tmp_path / "p", after)))
    assert ArrayFile.exists(tmp_path / "p")
    assert len(packed) == len(ARRAYS)
    for i, array in enumerate(ARRAYS):
        np.testing.assert_array_equal(packed[i], array)
    np.testing.assert_array_equal(packed.rows, np.concatenate(ARRAYS))
    assert len(ArrayFile.write(tmp_path / "none", lambda count: [[np.zeros((0, 2))]])[0]) == 0
    (tmp_path / "p").write_bytes((tmp_path / "p").read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"has 131 bytes, not 132: delete .*p\.npz to redo it"):
        ArrayFile(tmp_path / "p")[0]


@pytest.mark.parametrize("ends", range(len(ARRAYS)))
def test_writing_goes_on_where_it_ended(tmp_path, monkeypatch, ends) -> None:
    """With the bytes of a file that was written in one go, whatever follows the arrays that are on disk."""
    monkeypatch.setattr(array_file, "FIRST_SAVE", 0.0)
    ArrayFile.write(tmp_path / "whole", after)
    asked: list[int] = []

    def ending(count: int) -> Iterator[list[np.ndarray]]:
        asked.append(count)
        for number, pieces in enumerate(after(count), start=count):
            if number == ends:
                yield [pieces[0][:1], *_end()]
            yield pieces

    path = tmp_path / "p"
    with pytest.raises(OSError, match="ended"):
        ArrayFile.write(path, ending)
    assert not ArrayFile.exists(path)
    with path.open("ab") as file:
        file.write(b"of an array that was not completed")
    ArrayFile.write(path, lambda count: asked.append(count) or after(count))
    # Complete: nothing is asked for.
    ArrayFile.write(path, ending)
    assert asked == [0, ends]
    for name in ("", ".npz"):
        assert Path(f"{path}{name}").read_bytes() == Path(f"{tmp_path / 'whole'}{name}").read_bytes()


def test_a_process_that_is_killed_early_has_saved_something(tmp_path, monkeypatch) -> None:
    """Arrays that take 0.15 s each: the first two are on disk when the third fails."""
    now = [0.0]

    def slowly(count: int) -> Iterator[list[np.ndarray]]:
        for number, pieces in enumerate(after(count), start=count):
            if number == 2:
                _end()
            now[0] += 0.15
            yield pieces

    with monkeypatch.context() as patch, pytest.raises(OSError, match="ended"):
        patch.setattr(array_file.time, "monotonic", lambda: now[0])
        ArrayFile.write(tmp_path / "p", slowly)
    asked: list[int] = []
    ArrayFile.write(tmp_path / "p", lambda count: asked.append(count) or after(count))
    assert asked == [2]


def test_a_file_that_has_lost_its_end_is_written_anew(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(array_file, "FIRST_SAVE", 0.0)

    def ending(count: int) -> Iterator[list[np.ndarray]]:
        yield from after(count)[:3]
        _end()

    with pytest.raises(OSError, match="ended"):
        ArrayFile.write(tmp_path / "p", ending)
    (tmp_path / "p").write_bytes(b"short")
    asked: list[int] = []
    ArrayFile.write(tmp_path / "p", lambda count: asked.append(count) or after(count))
    assert asked == [0]
    np.testing.assert_array_equal(ArrayFile(tmp_path / "p").rows, np.concatenate(ARRAYS))


def _end() -> list[np.ndarray]:
    raise OSError("ended")
