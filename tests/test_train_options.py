"""Options of the trainer's commands: from defaults, recipes and the command line, and back into a file."""

import dataclasses
from typing import ClassVar, Literal

import pytest
import yaml

from pseudomotion.train.engine.loop import make_accelerator
from pseudomotion.train.engine.options import Options as Bounded
from pseudomotion.train.engine.options import from_values, option, parse, to_yaml
from pseudomotion.train.options import MODELS, EvaluateOptions, FinetuneOptions, PretrainOptions
from pseudomotion.train.recipes import load_recipe, read_recipe, recipe_names
from pseudomotion.train.validate.options import ValidateOptions
from pseudomotion.train.videomae.model import SIZES


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run(Bounded):
    group: ClassVar[str] = "run"

    out: str = option(help="folder")
    resume: bool = option(False, help="go on")
    rate: float = option(0.5, help="in 100 %")
    steps: int | None = option(None, help="steps")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Other(Bounded):
    group: ClassVar[str] = "other"

    names: list[str] = option(["a", "b"], help="names")
    kind: Literal["x", "y"] = option("x", help="kind")
    limit: float | None = option(2.0, help="limit")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(Run, Other):
    free: ClassVar[frozenset[str]] = frozenset({"out", "resume"})


def read(*arguments):
    return parse(Options, "pmg-test", "A test.", arguments)


def test_defaults_and_flags():
    assert read("--out", "o") == Options(out="o")
    given = read("--out", "o", "--resume", "--rate", "1e-3", "--steps", "7", "--names", "c", "--kind", "y", "--limit", "3")
    assert given == Options(out="o", resume=True, rate=1e-3, steps=7, names=["c"], kind="y", limit=3.0)
    assert read("--out", "o", "--resume", "--no-resume", "--limit", "None", "--steps", "none") == Options(out="o", limit=None)


def test_a_recipe_stands_between_defaults_and_flags(tmp_path):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("about: mine\ntest: {rate: 3e-4, names: [d, e], steps: 9, limit: null}\nother: {nonsense: 1}\n")
    given = read("--recipe", str(recipe), "--out", "o", "--steps", "8")
    assert given == Options(out="o", rate=3e-4, names=["d", "e"], steps=8, limit=None)


def test_options_are_saved_and_read_again(tmp_path):
    options = Options(out="o", rate=0.25, names=["q"], steps=3, limit=None)
    file = tmp_path / "config.yaml"
    file.write_text(to_yaml(options, "test"))
    assert read("--recipe", str(file)) == options


def test_a_resumed_run_has_the_options_it_began_with(tmp_path):
    (tmp_path / "config.yaml").write_text(to_yaml(Options(out="elsewhere", rate=0.25, names=["q"]), "test"))
    given = read("--out", str(tmp_path), "--resume", "--names", "q")
    assert given == Options(out=str(tmp_path), rate=0.25, names=["q"], resume=True)
    with pytest.raises(ValueError, match=r"--rate \(was 0.25, now 0.3\)"):
        read("--out", str(tmp_path), "--resume", "--rate", "0.3")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("test: {rat: 1}", "unknown options rat; known are kind, limit, names, out, rate, resume, steps"),
        ("test: {rate: fast}", "--rate: must be a number, got 'fast'"),
        ("test: {rate: null}", "--rate: must be a number, got 'None'"),
        ("test: {steps: 1.5}", "--steps: must be an integer or none, got '1.5'"),
        ("test: {steps: true}", "--steps: expected one argument"),
        ("test: {resume: 1}", "unrecognized arguments: 1"),
        ("test: {kind: z}", "--kind: must be one of x, y, got 'z'"),
        ("other: {}", "has no section 'test'"),
        ("[1, 2", "is not YAML"),
    ],
)
def test_what_is_wrong_with_a_recipe_is_said(tmp_path, text, message):
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        read("--out", "o", "--recipe", str(tmp_path / "bad.yaml"))


def test_what_must_be_given_is_named():
    with pytest.raises(ValueError, match="--out must be given"):
        read()


def test_a_flag_that_is_not_known_is_named():
    with pytest.raises(ValueError, match="unrecognized arguments: --rat 3"):
        read("--out", "o", "--rat", "3")


def test_recipes_that_do_not_exist_are_named_beside_those_that_do():
    with pytest.raises(ValueError, match=r"there is no recipe nothing: neither a file, nor one of .*demo"):
        read_recipe("nothing", "pretrain")


@pytest.mark.parametrize("config", [PretrainOptions, FinetuneOptions, EvaluateOptions])
def test_every_option_is_explained(config, capsys):
    with pytest.raises(SystemExit) as ended:
        parse(config, "pmg-command", "Do it.", ["--help"])
    assert ended.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for field in dataclasses.fields(config):
        shown = field.name.upper() if field.name == getattr(config, "positional", None) else f"--{field.name.replace('_', '-')}"
        assert shown in text
        assert f"--{field.name} " not in text or "_" not in field.name, "a second spelling"
        assert "".join(field.metadata["help"].split()) in text.replace(" ", "")  # lines also break after hyphens
    for group in config.__bases__:
        assert f"{group.group}:" in text


def test_options_of_pretraining_go_into_a_recipe_and_back():
    options = PretrainOptions(out="o", images=["i", "j"], crop=[0.2, 0.8], limit=4, transforms=["fade"], log_with=None)
    assert from_values(PretrainOptions, yaml.safe_load(to_yaml(options, "pretrain"))["pretrain"]) == options


@pytest.mark.parametrize(
    "arguments", [["run", "--test", "list", "--cpu"], ["--cpu", "--test", "list", "run"], ["--test", "list", "run", "--cpu"]]
)
def test_a_positional_argument_may_stand_anywhere(arguments):
    assert parse(EvaluateOptions, "pmg-evaluate", "", arguments) == EvaluateOptions(run="run", test="list", cpu=True)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"max_steps": 0}, "max_steps must be at least 1"),
        ({"betas": [0.9]}, "betas must be 2 numbers at least 0 and below 1"),
        ({"betas": [0.9, 1.0]}, "betas must be 2 numbers at least 0 and below 1"),
        ({"crop": [0.5]}, "crop must be 2 numbers"),
        ({"clips": "videos"}, "--clips videos needs --videos"),
        ({"clips": "videos", "videos": "v", "limit": 3}, "--limit chooses images"),
        ({"clips": "pmg-aug", "videos": "v", "aug_frames": False}, "needs --aug-frames or --aug-images"),
        ({"picture_every": 0}, "picture_every must be at least 1"),
        ({"save_every": "often"}, "save_every must be a number of steps, or of minutes such as 15m"),
        ({"save_every": "0m"}, "save_every must be"),
        ({"clip_grad": 0.0}, "clip_grad must be above 0, got 0.0"),
        ({"ema": 1.0}, "ema must be above 0 and below 1, got 1.0"),
        ({"frame_size": 0}, "frame_size must be at least 1, got 0"),
        ({"init": "m", "patch_size": 8}, "patch_size must be left out with init, whose model has its own, got 8"),
        ({"out": ""}, 'out must be a folder, got ""'),
        ({"textures": ["noise"]}, "--textures are what objects show; they need --objects"),
        ({"objects": "mixed", "num_textures": 0}, "num_textures must be at least 1, got 0"),
        ({"objects": "mixed", "transforms": ["fade", "cutmix"]}, "--objects cannot be combined with --transforms cutmix"),
        ({"objects": "mixed", "clips": "perlin"}, "--objects move over pseudo-motion, which --clips perlin does not make"),
    ],
)
def test_options_that_make_no_sense_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        PretrainOptions(**{"out": "o"} | values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"crop": [0.5, 0.2]}, r"crop must be the smallest share and the largest, got \[0.5, 0.2\]"),
        ({"crop": [0.0, 0.2]}, "crop must be 2 numbers above 0 and at most 1"),
        ({"flip": 2.0}, "flip must be at least 0 and at most 1, got 2.0"),
        ({"magnitude": 11.0}, "magnitude must be at least 0 and at most 10, got 11.0"),
        ({"randaugment": -1}, "randaugment must be at least 0, got -1"),
        ({"erasing": 1.5}, "erasing must be at least 0 and at most 1"),
        ({"layer_decay": 0.0}, "layer_decay must be above 0 and at most 1, got 0.0"),
        ({"label_smoothing": 1.0}, "label_smoothing must be at least 0 and below 1, got 1.0"),
    ],
)
def test_fine_tuning_that_makes_no_sense_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        FinetuneOptions(**{"train": "t", "val": "v", "out": "o"} | values)


def test_a_tracker_that_is_not_installed_is_named():
    """Before anything is read or trained."""
    with pytest.raises(ImportError, match="log_with = dvclive needs the package dvclive, which is not installed"):
        make_accelerator(PretrainOptions(out="o", log_with=["dvclive"], cpu=True))
    with pytest.raises(ValueError, match=r"log_with must be of aim, .*tensorboard.*, got 'paper'"):
        make_accelerator(PretrainOptions(out="o", log_with=["paper"], cpu=True))


def test_sizes_are_those_of_the_models():
    assert tuple(SIZES) == MODELS


def test_the_help_is_short_where_it_can_be(capsys):
    with pytest.raises(SystemExit):
        read("--help")
    text = capsys.readouterr().out
    assert text.startswith("usage: pmg-test --out OUT [options]\n\nA test.\n")
    lines = [" ".join(line.split()) for line in text.splitlines()]
    for line in ("--out OUT folder (required)", "--resume go on", "--rate X in 100 % (default: 0.5)", "--steps N steps"):
        assert line in lines
    for line in ("--names NAMES ... names (default: a b)", "--kind x|y kind (default: x)", "--limit X limit (default: 2.0)"):
        assert line in lines


def test_recipes_are_listed(capsys):
    assert "demo" in recipe_names()
    with pytest.raises(SystemExit) as ended:
        read("--list-recipes")
    assert ended.value.code == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == recipe_names()


@pytest.mark.parametrize("config", [PretrainOptions, FinetuneOptions, EvaluateOptions, ValidateOptions])
def test_only_commands_that_recipes_are_for_take_one(config, capsys):
    name = config.__name__.removesuffix("Options").lower()
    served = any(name in load_recipe(recipe) for recipe in recipe_names())
    with pytest.raises(SystemExit):
        parse(config, f"pmg-{name}", "", ["--help"])
    assert ("--recipe NAME" in (text := capsys.readouterr().out)) == ("--list-recipes" in text) == served


def test_what_a_recipe_needs_is_asked_for(tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text("needs: {steps: some steps, videos: of another command}\ntest: {rate: 0.1}\n")
    with pytest.raises(ValueError, match=r"needs --steps \(some steps\)"):
        read("--out", "o", "--recipe", str(recipe))
    assert read("--out", "o", "--recipe", str(recipe), "--steps", "3").steps == 3
    recipe.write_text("needs: {names or rate: something}\ntest: {steps: 1}\n")
    assert read("--out", "o", "--recipe", str(recipe), "--rate", "0.7").rate == 0.7
    with pytest.raises(ValueError, match=r"needs --names or --rate \(something\)"):
        read("--out", "o", "--recipe", str(recipe))
    (tmp_path / "config.yaml").write_text(to_yaml(Options(out="elsewhere", steps=1, names=["q"]), "test"))
    assert read("--out", str(tmp_path), "--recipe", str(recipe), "--resume").names == ["q"]
