import pytest

from spintok.hub.card import read_card


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("---\nlicense: mit\n# no: field\ndescription: 'a: b'\ntags:\n  - x: y\n---\nlicense: other\n", True),
        ("license: mit\n", False),
        ("---\nlicense: mit\n", False),
        ("", False),
    ],
)
def test_fields_are_those_at_the_head(tmp_path, text, fields) -> None:
    (tmp_path / "README.md").write_text(text)
    assert read_card(tmp_path) == ({"license": "mit", "description": "a: b", "tags": ""} if fields else {})


def test_no_card_has_no_fields(tmp_path) -> None:
    assert read_card(tmp_path) == {}
