"""Extended tokenizers of every kind, and the embeddings of the model that goes with them."""

import json

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from spintok.export.embeddings import project_codewords, resize_embeddings
from spintok.export.errors import ExportError
from spintok.export.hf_tokenizer import extend_tokenizer, text_encoder
from spintok.export.sequences.base import speech_only
from spintok.export.sequences.speech_text import speech_to_text, text_to_speech
from spintok.export.vocabulary import SPECIALS, Vocabulary
from spintok.tokens import Tokens

tokenizers = pytest.importorskip("tokenizers")
transformers = pytest.importorskip("transformers")

LINES = ["the quick brown fox jumps over the lazy dog", "speech tokens are read by language models", "naïve café, 日本"]
KINDS = ["bpe", "byte-level", "wordlevel", "unigram"]


def make_base(kind):
    models, trainers, pre = tokenizers.models, tokenizers.trainers, tokenizers.pre_tokenizers
    special = ["<unk>", "<s>", "</s>"]
    if kind == "bpe":
        model = tokenizers.Tokenizer(models.BPE(unk_token="<unk>"))
        model.pre_tokenizer = pre.Whitespace()
        trainer = trainers.BpeTrainer(vocab_size=120, special_tokens=special, show_progress=False)
    elif kind == "byte-level":
        model = tokenizers.Tokenizer(models.BPE())
        model.pre_tokenizer = pre.ByteLevel(add_prefix_space=False)
        model.decoder = tokenizers.decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=330, special_tokens=special, initial_alphabet=pre.ByteLevel.alphabet(), show_progress=False
        )
    elif kind == "wordlevel":
        model = tokenizers.Tokenizer(models.WordLevel(unk_token="<unk>"))
        model.pre_tokenizer = pre.Whitespace()
        trainer = trainers.WordLevelTrainer(special_tokens=special, show_progress=False)
    else:
        model = tokenizers.Tokenizer(models.Unigram())
        model.pre_tokenizer = pre.Metaspace()
        model.decoder = tokenizers.decoders.Metaspace()
        trainer = trainers.UnigramTrainer(vocab_size=80, special_tokens=special, unk_token="<unk>", show_progress=False)
    model.train_from_iterator(LINES, trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=model, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


@pytest.fixture(scope="module", params=KINDS)
def base(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param) / "base"
    make_base(request.param).save_pretrained(folder)
    return folder


def extend(base, output, **options):
    given = {"tokenizer": "random", "fingerprint": "f" * 64, "codebooks": {"primary": 30}} | options
    return extend_tokenizer(base, output, **given)


@pytest.fixture(scope="module")
def extended(base):
    output = base.parent / "extended"
    vocabulary = extend(base, output, durations=4)
    return (
        vocabulary,
        transformers.AutoTokenizer.from_pretrained(output),
        transformers.AutoTokenizer.from_pretrained(base),
    )


def test_ids_are_contiguous_and_behind_the_text(extended):
    vocabulary, tokenizer, base = extended
    assert vocabulary.first_id == len(base)
    assert len(tokenizer) == vocabulary.size == len(base) + 30 + 4 + len(SPECIALS)
    assert [tokenizer.convert_tokens_to_ids(f"<|s_{code}|>") for code in range(30)] == vocabulary.ids(
        range(30)
    ).tolist()
    for role, text in SPECIALS.items():
        assert tokenizer.convert_tokens_to_ids(text) == vocabulary.special(role)
    assert tokenizer.convert_tokens_to_ids("<|d_4|>") == vocabulary.duration_offset + 4


@settings(max_examples=150, deadline=None)
@given(text=st.one_of(st.text(), st.sampled_from(LINES), st.lists(st.sampled_from(LINES)).map(" \n".join)))
def test_text_is_encoded_as_before(extended, text):
    _, tokenizer, base = extended
    # hypothesis draws strings of the source code, too.
    assume(not any(token in text for token in tokenizer.get_added_vocab()))
    assert tokenizer(text).input_ids == base(text).input_ids
    ids = base(text).input_ids
    assert tokenizer.decode(ids) == base.decode(ids)


def test_speech_is_encoded_whole_and_survives_a_decoder_that_skips_special_tokens(extended):
    vocabulary, tokenizer, _ = extended
    sequence = speech_only(Tokens(np.array([3, 3, 29, 0]), 30), vocabulary, "durations")
    assert sequence.text == "[SOS]<|s_3|><|d_2|><|s_29|><|d_1|><|s_0|><|d_1|>[EOS]"
    assert tokenizer(sequence.text, add_special_tokens=False).input_ids == sequence.ids.tolist()
    kept = tokenizer.decode(sequence.ids, skip_special_tokens=True).replace(" ", "")
    assert kept == sequence.text.removeprefix("[SOS]").removesuffix("[EOS]")


@pytest.mark.parametrize("build", [speech_to_text, text_to_speech])
def test_the_plain_text_view_encodes_to_the_ids(extended, build):
    vocabulary, tokenizer, _ = extended

    def encode(text):
        return tokenizer(text, add_special_tokens=False).input_ids

    sequence = build(Tokens(np.array([3, 3, 29, 0]), 30), "the lazy fox", vocabulary, encode)
    assert encode(sequence.text) == sequence.ids.tolist()


@pytest.mark.parametrize(
    ("template", "text"), [("<Un{}>", "<Un17>"), ("[Hu{}]", "[Hu17]"), ("private-use", chr(0xE000 + 17))]
)
def test_templates(template, text, base, tmp_path):
    vocabulary = extend(
        base, tmp_path / "out", template=template, specials={"begin_speech": "<sp>", "end_speech": "</sp>"}
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer(text, add_special_tokens=False).input_ids == [vocabulary.offset() + 17]
    assert tokenizer("<sp>", add_special_tokens=False).input_ids == [vocabulary.special("begin_speech")]


def test_two_codebooks(base, tmp_path):
    vocabulary = extend(base, tmp_path / "out", codebooks={"primary": 5, "auxiliary": 7})
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.convert_tokens_to_ids("<|s_auxiliary_6|>") == vocabulary.offset("auxiliary") + 6
    assert vocabulary.offset("auxiliary") == vocabulary.first_id + 5


def test_the_map_lies_beside_it(base, tmp_path):
    vocabulary = extend(base, tmp_path / "out")
    assert Vocabulary.load(tmp_path / "out") == vocabulary
    found = json.loads((tmp_path / "out/vocabulary.spintok.json").read_text(encoding="utf-8"))
    assert found["fingerprint"] == "f" * 64
    assert found["offsets"] == {"primary": vocabulary.first_id}
    assert found["special_ids"]["asr"] == vocabulary.special("asr")


def test_bad_input_leaves_nothing(base, tmp_path):
    output = tmp_path / "out"
    extend(base, tmp_path / "first")
    cases = [
        (lambda: extend(tmp_path / "first", output), "has the token '<|s_0|>' already"),
        (lambda: extend(base, output, specials={"asr": "<s>"}), "has the token '<s>' already"),
        (lambda: extend(base, output, template="<s>"), "it must contain {} once"),
        (lambda: extend(base, output, specials={"singing": "[SING]"}), "unknown special token 'singing'"),
        (lambda: extend(base, output, specials={"asr": "[X]", "tts": "[X]"}), "the same text"),
        (lambda: extend(tmp_path, output), "no tokenizer that transformers can load"),
    ]
    for run, message in cases:
        with pytest.raises(ExportError) as error:
            run()
        assert message in str(error.value)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["first"]
    (tmp_path / "first/spintok.json").touch()
    with pytest.raises(ExportError, match="holds 'spintok.json', which is not part of a tokenizer"):
        extend(base, tmp_path / "first", template="<Un{}>", overwrite=True)
    (tmp_path / "first/spintok.json").unlink()
    with pytest.raises(ExportError, match="another extended tokenizer"):
        extend(base, tmp_path / "first", template="<Un{}>")
    assert extend(base, tmp_path / "first") == Vocabulary.load(tmp_path / "first")
    extend(base, tmp_path / "first", template="<Un{}>", overwrite=True)
    assert Vocabulary.load(tmp_path / "first").template == "<Un{}>"


BOMB = """
from pathlib import Path
Path("BANG").touch()
from transformers import PreTrainedTokenizerFast
class Bomb(PreTrainedTokenizerFast):
    pass
"""


def test_code_that_comes_with_a_base_is_not_run(tmp_path, monkeypatch):
    """Neither by itself nor after a question on the terminal, which transformers asks by default."""
    base, bang = tmp_path / "base", tmp_path / "bang"
    make_base("wordlevel").save_pretrained(base)
    config = json.loads((base / "tokenizer_config.json").read_text())
    auto_map = {"AutoTokenizer": ["bomb.Bomb", "bomb.Bomb"]}
    (base / "tokenizer_config.json").write_text(json.dumps(config | {"tokenizer_class": "Bomb", "auto_map": auto_map}))
    (base / "bomb.py").write_text(BOMB.replace("BANG", str(bang)))
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    # The folder is a bomb indeed.
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    transformers.AutoTokenizer.from_pretrained(base, trust_remote_code=True)
    assert bang.exists()
    bang.unlink()
    for source in (lambda: extend(base, tmp_path / "out"), lambda: text_encoder(base)):
        with pytest.raises(ExportError, match="Python code that comes with it, which spintok does not run") as caught:
            source()
        assert "\n" not in str(caught.value)
    assert not bang.exists()
    assert not (tmp_path / "out").exists()


def test_overwriting_never_deletes_other_files(base, tmp_path):
    """People save the language model beside its tokenizer."""
    output = tmp_path / "out"
    extend(base, output)
    (output / "model.safetensors").write_text("weeks of training")
    for overwrite in (False, True):
        with pytest.raises(ExportError, match="holds 'model.safetensors', which is not part of a tokenizer"):
            extend(base, output, template="<Un{}>", overwrite=overwrite)
    assert extend(base, output) == Vocabulary.load(output)
    assert (output / "model.safetensors").read_text() == "weeks of training"


def tiny(rows, tied):
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=rows, n_embd=16, n_layer=1, n_head=2, tie_word_embeddings=tied)
    return transformers.GPT2LMHeadModel(config)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("rows", [40, 200])
def test_embeddings_of_text_stay_and_new_ones_lie_near_their_mean(tied, rows):
    vocabulary = Vocabulary("random", "f", {"primary": 30}, first_id=40)
    model = tiny(rows, tied)
    before = [layer.weight.detach().clone() for layer in (model.get_input_embeddings(), model.get_output_embeddings())]
    resize_embeddings(model, vocabulary)
    for old, layer in zip(before, (model.get_input_embeddings(), model.get_output_embeddings()), strict=True):
        weight = layer.weight.detach()
        assert weight.shape[0] == max(rows, vocabulary.size)
        torch.testing.assert_close(weight[:40], old[:40], rtol=0, atol=0)
        new = weight[40 : vocabulary.size]
        spread = (old[:40] - old[:40].mean(0)).square().mean().sqrt()
        # Noise of 0.02 spreads: its root mean square over some 650 numbers is within a tenth of that.
        assert ((new - old[:40].mean(0)).square().mean().sqrt() / spread).item() == pytest.approx(0.02, rel=0.1)
    ids = torch.arange(vocabulary.size)[None, :64]
    assert torch.isfinite(model(input_ids=ids).logits).all()


@pytest.mark.parametrize("tied", [True, False])
def test_embeddings_from_codewords_keep_their_geometry(tied):
    codewords = torch.randn(30, 8, generator=torch.Generator().manual_seed(1))
    vocabulary = Vocabulary("random", "f", {"primary": 30}, first_id=40)
    model = tiny(40, tied)
    text = model.get_input_embeddings().weight.detach().clone()
    resize_embeddings(model, vocabulary, codewords=codewords)
    new = model.get_input_embeddings().weight.detach()[40:70] - text.mean(0)
    centred = codewords - codewords.mean(0)
    expected = torch.nn.functional.cosine_similarity(centred[:, None], centred[None], dim=-1)
    found = torch.nn.functional.cosine_similarity(new[:, None], new[None], dim=-1)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    spread = (text - text.mean(0)).square().mean().sqrt()
    assert new.square().mean().sqrt().item() == pytest.approx(spread.item(), rel=1e-3)


def test_wide_codewords_keep_their_strongest_directions():
    generator = torch.Generator().manual_seed(2)
    strong = torch.randn(50, 4, generator=generator) @ torch.randn(4, 32, generator=generator)
    codewords = strong + 1e-4 * torch.randn(50, 32, generator=generator)
    projected = project_codewords(codewords, 4)
    centred = codewords - codewords.mean(0)
    scale = centred.norm() / projected.norm()
    torch.testing.assert_close(
        torch.cdist(projected, projected) * scale, torch.cdist(centred, centred), rtol=0, atol=1e-2
    )


def test_embeddings_refuse_what_does_not_fit():
    vocabulary = Vocabulary("random", "f", {"primary": 30}, first_id=40)
    with pytest.raises(ExportError, match="another tokenizer's"):
        resize_embeddings(tiny(39, True), vocabulary)
    with pytest.raises(ExportError, match="29 codewords for a codebook of 30"):
        resize_embeddings(tiny(40, True), vocabulary, codewords=torch.randn(29, 8))
    with pytest.raises(ExportError, match="all the same"):
        project_codewords(torch.ones(30, 8), 16)
