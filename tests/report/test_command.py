import sys

import pytest
from pages import Page

from spintok import cli


def run(capsys, *arguments):
    """Exit code, standard output and standard error of ``spintok report``, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["spintok", "report", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
    out, err = capsys.readouterr()
    return ended.value.code, out, err


def test_a_folder_with_all_there_is(capsys, tmp_path, token_folder, phones, evaluation) -> None:
    page = tmp_path / "page.html"
    code, out, err = run(
        capsys, token_folder, "-o", page, "--alignments", phones, "--evaluation", evaluation, "--codebook", "primary"
    )
    assert (code, err) == (0, "")
    assert out.startswith(f"{page}: 0.")
    found = Page(page.read_text(encoding="utf-8"))
    assert found.all("h1") == ["six-voices"]
    assert {"heat", "robustness", "usage", "imbalance", "run-lengths", "speakers", "bitrates"} <= found.ids


def test_a_file_to_the_default_page(capsys, tmp_path, speech, two_codebooks, monkeypatch) -> None:
    two_codebooks.save(tmp_path / "two")
    monkeypatch.chdir(tmp_path)
    assert run(capsys, speech / "fred_yes.flac", "--tokenizer", "two", "--quiet", "--device", "cpu") == (0, "", "")
    found = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert [lane["name"] for lane in found.data["lanes"]] == ["primary", "auxiliary"]
    assert "tokens of two" in "".join(found.all("p"))


def test_two_tokenizers_and_audio_of_codes(capsys, tmp_path, speech, token_folder, two_codebooks, monkeypatch) -> None:
    two_codebooks.save(tmp_path / "two")
    two_codebooks.save(tmp_path / "twin")
    page = tmp_path / "page.html"
    audio = speech / "fred_yes.flac"
    options = ["-t", tmp_path / "two", "-t", tmp_path / "twin", "-o", page, "--quiet", "--device", "cpu"]
    assert run(capsys, audio, *options) == (0, "", "")
    # Tokenizers of one name are told apart by their folders.
    names = [lane["name"] for lane in Page(page.read_text(encoding="utf-8")).data["lanes"]]
    assert names == [f"{tmp_path / name}, {book}" for name in ("two", "twin") for book in ("primary", "auxiliary")]
    # A few codes, because each is encoded.
    monkeypatch.setattr("spintok.report.corpus.MOST_CODES", 3)
    assert run(capsys, token_folder, "--listen", "-o", page, "--overwrite", "--quiet") == (0, "", "")
    found = Page(page.read_text(encoding="utf-8"))
    heard = found.data["hear"]
    assert len(heard["codes"]) == 3
    assert f"The {heard['left_out']} least frequent codes have no audio here." in " ".join(found.all("p"))
    assert all(
        len(code["places"]) <= 10 and code["sound"].startswith("data:audio/ogg") for code in heard["codes"].values()
    )


def test_an_existing_page_is_replaced_only_on_request(capsys, tmp_path, speech, token_folder, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = tmp_path / "report.html"
    page.write_text("mine")
    for options in ([], ["-o", page]):
        code, out, err = run(capsys, token_folder, *options)
        assert (code, out) == (cli.USAGE, "")
        assert "report.html: exists already" in err
        assert "--overwrite" in err
        assert page.read_text() == "mine"
    assert run(capsys, token_folder, "--overwrite", "--quiet") == (0, "", "")
    assert Page(page.read_text(encoding="utf-8")).all("h1") == ["six-voices"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["TOKENS", "--tokenizer", "mfcc-kmeans-100"], "--tokenizer is for audio"),
        (["AUDIO", "--codebook", "primary"], "--codebook is for token folders"),
        (["AUDIO", "--evaluation", "e.json"], "--evaluation is for token folders"),
        (["AUDIO", "--listen"], "--listen is for token folders"),
        (["nowhere.wav"], "nowhere.wav: no such file"),
        (["."], "not a folder of tokens"),
    ],
)
def test_a_users_error_is_one_line_and_no_page(
    capsys, tmp_path, speech, token_folder, monkeypatch, arguments, message
) -> None:
    monkeypatch.chdir(tmp_path)
    places = {"TOKENS": token_folder, "AUDIO": speech / "fred_yes.flac"}
    code, out, err = run(capsys, *(places.get(argument, argument) for argument in arguments))
    assert (code, out) == (cli.USAGE, "")
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "report.html").exists()


def test_a_decoder_speaks(capsys, tmp_path, speech, token_folder, two_codebooks, decoders) -> None:
    two_codebooks.save(tmp_path / "two")
    decoders[1].save(tmp_path / "voice", dtype="float32")
    page = tmp_path / "page.html"
    options = ["-t", tmp_path / "two", "--decoder", tmp_path / "voice", "-o", page, "--quiet", "--device", "cpu"]
    assert run(capsys, speech / "fred_yes.flac", *options) == (0, "", "")
    assert "spoken by hum-auxiliary" in page.read_text(encoding="utf-8")
    for source, others, message in (
        (speech / "fred_yes.flac", ["-t", "mfcc-kmeans-100"], "which is none of the tokenizers here"),
        (token_folder, [], "--decoder is for audio"),
    ):
        wrong = [source, *others, "--decoder", tmp_path / "voice", "-o", tmp_path / "other.html"]
        code, _, err = run(capsys, *wrong)
        assert code != 0
        assert message in err
        assert err.count("\n") == 1
