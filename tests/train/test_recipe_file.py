import tomllib
from pathlib import Path

import pytest
from small_models import TINY, save_tiny

from spintok.models.config import EncoderConfig
from spintok.train.recipe import CtcRecipe, DecoderRecipe, KMeansRecipe, PretrainRecipe, RecipeError, SpinRecipe
from spintok.train.recipe_file import read_recipe, shipped_recipes

SPIN = """
stage = "spin"
name = "s"
[[codebooks]]
name = "primary"
size = 8
[optimizer]
steps = 10
warmup = 2
"""
RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.toml"))


@pytest.fixture
def path(tmp_path) -> Path:
    (tmp_path / "r.toml").write_text(SPIN)
    return tmp_path / "r.toml"


def test_a_recipe_and_its_defaults(path) -> None:
    recipe = read_recipe(path)
    assert isinstance(recipe, SpinRecipe)
    assert recipe.codebooks[0].size == 8
    assert recipe.codebooks[0].width == 256
    assert recipe.train_layers == 2
    assert recipe.loss.epsilon == 0.02
    assert recipe.views.speaker.formant == 1.4
    assert recipe.labels is None


def test_settings_take_the_place_of_fields(path) -> None:
    settings = [
        "codebooks.0.size=100",
        "optimizer.learning_rate=1e-3",
        "data.seconds = 4",
        "start=some/folder",
        'labels.tokenizer="mfcc-kmeans-100"',
        "labels.source=codes",
        "optimizer.betas=[0.9, 0.98]",
        "loop.recompute=true",
        "views.speaker.formant=1.2",
    ]
    recipe = read_recipe(path, settings)
    assert isinstance(recipe, SpinRecipe)
    assert recipe.codebooks[0].size == 100
    assert recipe.optimizer.learning_rate == 1e-3
    assert recipe.optimizer.betas == (0.9, 0.98)
    assert isinstance(recipe.data.seconds, float)
    assert recipe.start == "some/folder"
    assert recipe.labels is not None
    assert recipe.labels.tokenizer == "mfcc-kmeans-100"
    assert recipe.labels.source == "codes"
    assert recipe.loop.recompute
    assert recipe.views.speaker.formant == 1.2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["colour=1"], r"r\.toml: unknown field 'colour'; known: name, start"),
        (["optimizer.rate=1"], r"r\.toml: \[optimizer\]: unknown field 'rate'"),
        (["codebooks.0.depth=1"], r"\[codebooks.0\]: unknown field 'depth'"),
        (["codebooks.0.size=many"], r"codebooks.0.size must be of type int, got 'many'"),
        (["codebooks.0.size=true"], r"codebooks.0.size must be of type int, got True"),
        (["codebooks.1.size=9"], r"--set codebooks.1.size=9: '1' is not one of the entries 0 ... 0"),
        (["codebooks=3"], r"codebooks must be a list, got 3"),
        (["codebooks=[]"], r"codebooks must list at least one"),
        (["optimizer=3"], r"optimizer must be a table, got 3"),
        (["name.first=3"], r"'name' is not a section"),
        (["steps"], r"--set steps: expected field=value"),
        (["optimizer.warmup=11"], r"\[optimizer\]: warmup must be at most steps, got 11 of 10"),
        (["optimizer.betas=[0.9]"], r"\[optimizer\]: betas must be two numbers"),
        (["optimizer.kind=sgd"], r"optimizer.kind must be one of 'adam', 'adamw', got 'sgd'"),
        (["optimizer.clip=0"], r"clip must be above 0"),
        (["loop.precision=int8"], r"loop.precision must be one of"),
        (["data.max_seconds=0.1"], r"\[data\]: max_seconds must be at least 0.5"),
        (["data.workers=-1"], r"\[data\]: workers must be at least 0"),
        (["loss.epsilon=0"], r"\[loss\]: epsilon must be above 0"),
        (["views.noise=2"], r"\[views\]: noise must be in \[0, 1\]"),
        (["views.band_max=9000"], r"\[views\]: need 100 <= band_min <= band_max <= 8000"),
        (["views.shift=320"], r"\[views\]: shift must be less than a frame of 320 samples"),
        (["views.babble=0.5"], r"\[views\]: babble is a kind of noise"),
        (["views.rt60_min=2"], r"\[views\]: need 0 < rt60_min <= rt60_max"),
        (["views.speaker.formant=9"], r"\[views.speaker\]: the bound formant is a ratio"),
        (["views.variants=2", "labels.tokenizer=x"], r"views.variants stores"),
        (["labels.weight=1"], r"\[labels\]: the field 'tokenizer' is missing"),
        (
            ["stage=pretrain", "labels=x", "disguised=0.5", "second_view_probability=0.5", "codebooks=1"],
            r"'disguised' is the former name of 'second_view_probability': set one of the two",
        ),
        (["stage=dance"], r"stage must be one of 'kmeans', 'pretrain', 'ctc', 'spin', 'decoder', got 'dance'"),
        (["stage=ctc", "symbols=phonemes"], r"unknown field 'codebooks'"),
    ],
)
def test_bad_fields_are_named(path, settings, message) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        read_recipe(path, settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('stage = "spin"\nname = "s"\n', "the field 'codebooks' is missing"),
        ('stage = "ctc"\nname = "c"\nsymbols = "phonemes"\n', "needs a lexicon"),
        ('stage = "kmeans"\nname = "k"\nencoder = "mfcc"\nshare = 0.0\n[kmeans]\nsize = 2\n', "share must be in"),
        ('stage = "kmeans"\nname = "k"\nencoder = "mfcc"\n[kmeans]\nsize = 0\n', "at least 1"),
        ('stage = "pretrain"\nname = "p"\nlabels = "x"\n[mask]\nlength = 0\n', r"\[mask\]: length must be at least 1"),
        ('stage = "pretrain"\nname = "p"\nlabels = "x"\n[encoder]\nwidth = 7\n', r"\[encoder\]: width 7"),
        ("stage = ", "not TOML"),
    ],
)
def test_bad_recipes_are_named(tmp_path, text, message) -> None:
    (tmp_path / "bad.toml").write_text(text)
    with pytest.raises(RecipeError, match=message) as caught:
        read_recipe(tmp_path / "bad.toml")
    assert str(tmp_path / "bad.toml") in str(caught.value)


def test_a_missing_recipe_is_named(tmp_path) -> None:
    with pytest.raises(RecipeError, match=r"no\.toml: no such recipe"):
        read_recipe(tmp_path / "no.toml")
    with pytest.raises(RecipeError, match="is a folder, not a recipe"):
        read_recipe(tmp_path)


def test_recipes_ship_and_are_found_by_name(tmp_path, monkeypatch) -> None:
    assert shipped_recipes() == [path.stem for path in RECIPES]
    project = tomllib.loads((RECIPES[0].parents[1] / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert "spintok.recipes" in project["packages"]
    assert project["package-dir"]["spintok.recipes"] == "recipes"
    assert project["package-data"]["spintok.recipes"] == ["*.toml"]
    monkeypatch.chdir(tmp_path)
    by_path = read_recipe(RECIPES[-1])
    assert read_recipe(RECIPES[-1].stem) == read_recipe(RECIPES[-1].name) == by_path
    # A file of the same name comes first.
    Path(RECIPES[-1].name).write_text(SPIN)
    assert read_recipe(RECIPES[-1].name).name == "s"
    with pytest.raises(RecipeError, match="no such recipe; give a TOML file or one of dc_spin_hubert_base, "):
        read_recipe(f"elsewhere/{RECIPES[-1].stem}")


def test_the_name_follows_the_settings(path) -> None:
    assert read_recipe("mfcc_kmeans_100").name == "mfcc-kmeans-100"
    assert read_recipe("mfcc_kmeans_100", ["kmeans.size=20"]).name == "mfcc-kmeans-20"
    assert read_recipe("spin_hubert_base", ["codebooks.0.size=500"]).name == "spin-hubert-base-500"
    assert read_recipe("mfcc_kmeans_100", ["name=other", "kmeans.size=20"]).name == "other"
    # Defaults have values too.
    assert read_recipe(path, ["name=s-{optimizer.kind}-{codebooks.0.width}"]).name == "s-adam-256"
    for field in ("kmeans.size", "codebooks.1.size", "codebooks.x", "optimizer..kind"):
        with pytest.raises(RecipeError, match=f"name: there is no field '{field}'"):
            read_recipe(path, [f"name=s-{{{field}}}"])


@pytest.mark.filterwarnings("ignore:pkg_resources is deprecated")
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_every_shipped_recipe_runs_dry(recipe, tmp_path, speech, capsys, monkeypatch) -> None:
    """With a small encoder of as many layers as the recipe reads, where it starts from one."""
    import sys

    from spintok import cli

    plan = read_recipe(recipe)
    arguments = ["train", str(recipe), "--data", str(speech), "--output", str(tmp_path / "o"), "--dry-run"]
    needs_start = plan.encoder != "mfcc" if isinstance(plan, KMeansRecipe) else not getattr(plan, "encoder", None)
    keeps = (isinstance(plan, PretrainRecipe) and plan.codebooks) or (
        isinstance(plan, SpinRecipe) and plan.codebooks[0].keep
    )
    if keeps:
        # It trains further what ships.
        arguments += ["--init", "dc-spin-10m-en"]
    elif needs_start:
        layers = getattr(plan, "layer", None) or max(4, getattr(plan, "train_layers", None) or 0)
        config = EncoderConfig(**{**TINY.to_dict(), "layers": layers})
        arguments += ["--init", str(save_tiny(tmp_path / "start", config))]
    if isinstance(plan, PretrainRecipe) and plan.phones is not None:
        (tmp_path / "phones.jsonl").write_text('{"id": "fred_yes", "phones": [["Y", 0.1, 0.5]]}\n')
        arguments += ["--set", f"phones.alignments={tmp_path / 'phones.jsonl'}"]
    elif isinstance(plan, PretrainRecipe) and plan.labels != "mfcc-kmeans-100":
        # Labels of an earlier stage, or of a file that the user has.
        arguments += ["--set", "labels=mfcc-kmeans-100"]
    if isinstance(plan, SpinRecipe) and plan.labels is not None:
        arguments += ["--set", "labels.tokenizer=mfcc-kmeans-100"]
    if isinstance(plan, DecoderRecipe):
        pytest.importorskip("pyworld")
        arguments += ["--set", "data.min_seconds=0.3"]
    if isinstance(plan, CtcRecipe):
        (tmp_path / "text").write_text("anna_tokens speech becomes tokens\nfred_yes yes\n")
        arguments += ["--set", f"transcripts={tmp_path / 'text'}"]
        (tmp_path / "lexicon").write_text("speech S P IY CH\nbecomes B IH K AH M Z\nyes Y EH S\n")
        arguments += ["--set", f"lexicon={tmp_path / 'lexicon'}", "--set", "unknown_words=guess"]
    monkeypatch.setattr(sys, "argv", ["spintok", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out, err = capsys.readouterr()
    assert ended.value.code == 0, err
    for word in ("parameters", "codebook", "speech", "steps"):
        assert word in out
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_every_shipped_recipe_says_how_to_run_it(recipe) -> None:
    header = [line for line in recipe.read_text().splitlines() if line.startswith("#")]
    assert any(f"spintok train {recipe.stem} --data" in line for line in header)
