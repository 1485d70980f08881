import pytest

from spintok.corpus.journal import Journal

ONE, OTHER = {"layer": 1}, {"layer": 2}


def entries(path, identity=ONE):
    with Journal(path, identity) as journal:
        return journal.entries


def test_entries_are_replayed_in_order(tmp_path) -> None:
    path = tmp_path / "journal"
    with Journal(path, ONE) as journal:
        assert journal.entries == []
        for i in range(3):
            journal.append({"i": i, "name": "\u2028\udce9\n"})
    with Journal(path, ONE) as journal:
        assert [entry["i"] for entry in journal.entries] == [0, 1, 2]
        assert journal.entries[0]["name"] == "\u2028\udce9\n"
        journal.append({"i": 3})
    assert [entry["i"] for entry in entries(path)] == [0, 1, 2, 3]


def test_every_torn_tail_loses_the_last_entry_only(tmp_path) -> None:
    path = tmp_path / "journal"
    with Journal(path, ONE) as journal:
        journal.append({"i": 0})
        journal.append({"i": 1})
    whole = path.read_bytes()
    last = whole.rindex(b"\n", 0, -1) + 1
    for end in range(last, len(whole)):
        path.write_bytes(whole[:end])
        assert entries(path) == [{"i": 0}]
        # The torn line is gone, so that the next entry does not follow it.
        assert path.read_bytes() == whole[:last]


def test_damage_ends_the_replay(tmp_path) -> None:
    path = tmp_path / "journal"
    with Journal(path, ONE) as journal:
        for i in range(3):
            journal.append({"i": i})
    whole = path.read_bytes()
    start = whole.index(b'{"i": 1}')
    for at in range(start - 9, start + 8):
        damaged = bytearray(whole)
        damaged[at] ^= 1
        path.write_bytes(damaged)
        assert entries(path) == [{"i": 0}]


def test_another_identity_discards_the_entries(tmp_path) -> None:
    path = tmp_path / "journal"
    with Journal(path, ONE) as journal:
        journal.append({"i": 0})
    assert entries(path, OTHER) == []
    assert entries(path, ONE) == []


def test_one_process_at_a_time(tmp_path) -> None:
    with Journal(tmp_path / "journal", ONE), pytest.raises(BlockingIOError):
        Journal(tmp_path / "journal", ONE)
