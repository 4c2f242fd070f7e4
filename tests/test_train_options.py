"""Options of the trainer's commands: from defaults, recipes and the command line, and back into a file."""

import dataclasses

import pytest
import yaml

from pseudomotion.train.engine.options import from_values, option, parse, to_yaml
from pseudomotion.train.pretrain import PretrainOptions
from pseudomotion.train.recipes import read_recipe, recipe_names


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    out: str = option(dataclasses.MISSING, "folder", group="run", free=True)
    resume: bool = option(False, "go on", group="run", free=True)
    rate: float = option(0.5, "in 100 %", group="run")
    steps: int | None = option(None, "steps", group="run")
    names: tuple[str, ...] = option(("a", "b"), "names", group="other")
    kind: str = option("x", "kind", group="other", choices=("x", "y"))


def read(*arguments):
    return parse(Options, "pmg-test", "A test.", arguments)


def test_defaults_and_flags():
    assert read("--out", "o") == Options(out="o")
    given = read("--out", "o", "--resume", "--rate", "1e-3", "--steps", "7", "--names", "c", "--kind", "y")
    assert given == Options(out="o", resume=True, rate=1e-3, steps=7, names=("c",), kind="y")


def test_a_recipe_stands_between_defaults_and_flags(tmp_path):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("about: mine\ntest: {rate: 3e-4, names: [d, e], steps: 9}\nother: {nonsense: 1}\n")
    given = read("--recipe", str(recipe), "--out", "o", "--steps", "8")
    assert given == Options(out="o", rate=3e-4, names=("d", "e"), steps=8)


def test_options_are_saved_and_read_again(tmp_path):
    options = Options(out="o", rate=0.25, names=("q",), steps=3)
    file = tmp_path / "config.yaml"
    file.write_text(to_yaml(options, "test"))
    assert read("--recipe", str(file)) == options


def test_a_resumed_run_has_the_options_it_began_with(tmp_path, capsys):
    (tmp_path / "config.yaml").write_text(to_yaml(Options(out="elsewhere", rate=0.25, names=("q",)), "test"))
    given = read("--out", str(tmp_path), "--resume", "--names", "q")
    assert given == Options(out=str(tmp_path), rate=0.25, names=("q",), resume=True)
    with pytest.raises(SystemExit):
        read("--out", str(tmp_path), "--resume", "--rate", "0.3")
    assert "--rate (was 0.25, now 0.3)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("test: {rat: 1}", "unknown options rat; known are out, resume, rate"),
        ("test: {rate: fast}", "rate must be float, got 'fast'"),
        ("test: {steps: 1.5}", "steps must be int, got 1.5"),
        ("test: {steps: true}", "steps must be int, got True"),
        ("test: {resume: 1}", "resume must be bool, got 1"),
        ("test: {names: a}", "names must be a list of str, got 'a'"),
        ("test: {kind: z}", "kind must be one of x, y, got 'z'"),
        ("other: {}", "has no section 'test'"),
        ("[1, 2", "is not YAML"),
    ],
)
def test_what_is_wrong_with_a_recipe_is_said(tmp_path, capsys, text, message):
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(SystemExit):
        read("--out", "o", "--recipe", str(tmp_path / "bad.yaml"))
    assert message in capsys.readouterr().err


def test_what_must_be_given_is_named(capsys):
    with pytest.raises(SystemExit):
        read()
    assert "--out must be given" in capsys.readouterr().err


def test_recipes_that_do_not_exist_are_named_beside_those_that_do():
    with pytest.raises(ValueError, match=r"there is no recipe nothing: neither a file, nor one of .*demo"):
        read_recipe("nothing", "pretrain")


def test_every_option_of_pretraining_is_explained(capsys):
    with pytest.raises(SystemExit):
        parse(PretrainOptions, "pmg-pretrain", "Pre-train.", ["--help"])
    text = " ".join(capsys.readouterr().out.split())
    for field in dataclasses.fields(PretrainOptions):
        assert f"--{field.name.replace('_', '-')}" in text
        assert field.metadata["help"] in text
    for group in ("run:", "optimisation:", "data:", "motion:", "model:"):
        assert group in text


def test_options_of_pretraining_go_into_a_recipe_and_back():
    options = PretrainOptions(out="o", images="i", crop=(0.2, 0.8), limit=4, transforms=("fade",))
    assert from_values(PretrainOptions, yaml.safe_load(to_yaml(options, "pretrain"))["pretrain"]) == options


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"max_steps": 0}, "max_steps must be at least 1"),
        ({"betas": (0.9,)}, "betas must be two numbers"),
        ({"betas": (0.9, 1.0)}, "betas must be two numbers"),
        ({"crop": (0.5,)}, "crop must be two numbers"),
        ({"clips": "videos"}, "--clips videos needs --videos"),
        ({"clips": "pmg-aug", "videos": "v", "aug_frames": False}, "needs --aug-frames or --aug-images"),
        ({"picture_every": 0}, "picture_every must be at least 1"),
    ],
)
def test_options_that_make_no_sense_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        PretrainOptions(out="o", **values)


def test_recipe_names_are_listed():
    assert "demo" in recipe_names()


def test_what_a_recipe_needs_is_asked_for(tmp_path, capsys):
    (tmp_path / "r.yaml").write_text("needs: {names: some names, videos: of another command}\ntest: {rate: 0.1}\n")
    with pytest.raises(SystemExit):
        read("--out", "o", "--recipe", str(tmp_path / "r.yaml"))
    assert "needs --names (some names)" in capsys.readouterr().err
    assert read("--out", "o", "--recipe", str(tmp_path / "r.yaml"), "--names", "n").names == ("n",)
    (tmp_path / "r.yaml").write_text("needs: {names or rate: something}\ntest: {steps: 1}\n")
    assert read("--out", "o", "--recipe", str(tmp_path / "r.yaml"), "--rate", "0.5").rate == 0.5
    with pytest.raises(SystemExit):
        read("--out", "o", "--recipe", str(tmp_path / "r.yaml"))
    assert "needs --names or --rate (something)" in capsys.readouterr().err
    (tmp_path / "config.yaml").write_text(to_yaml(Options(out="elsewhere", steps=1, names=("q",)), "test"))
    assert read("--out", str(tmp_path), "--recipe", str(tmp_path / "r.yaml"), "--resume").names == ("q",)
