"""The recipes: complete, true to the paper's figures, and each of them runs."""

import dataclasses
import importlib.util
import re
import subprocess
from functools import cache
from importlib import resources
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import trainer
import yaml
from paper import paper
from PIL import Image

from pseudomotion.train import pretrain
from pseudomotion.train.engine.options import from_values, parse
from pseudomotion.train.evaluate import EvaluateOptions
from pseudomotion.train.finetune import FinetuneOptions
from pseudomotion.train.pretrain import PretrainOptions
from pseudomotion.train.recipes import list_recipes, load_recipe, read_recipe, recipe_names
from pseudomotion.video import write_video
from pseudomotion.video.list_file import write_list

DOCS = Path(__file__).parents[1] / "docs"

TINY = ["--model", "micro", "--frame-size", "18", "--num-frames", "4", "--max-steps", "2", "--log-with", "none", "--cpu"]
FOLDER = resources.files("pseudomotion.train.recipes")
CPU = torch.device("cpu")
FIELDS = [field.name for field in dataclasses.fields(PretrainOptions)]
PRETRAINING = [name for name in recipe_names() if "pretrain" in load_recipe(name)]
OF_DATA_SETS = [name for name in recipe_names() if name.startswith("finetune-")]


@cache
def recipes_table():
    """The script of the docs; it is in no package."""
    spec = importlib.util.spec_from_file_location("recipes_table", DOCS / "recipes_table.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def needs(recipe):
    """What a recipe leaves to the user, by the first of the options that may say it."""
    return {names.partition(" or ")[0]: what for names, what in recipe.get("needs", {}).items()}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder of four images in two classes, and a list of four short videos in two classes."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    lines = []
    for k in range(4):
        place = folder / "images" / f"class{k % 2}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), np.uint8)).save(place / f"{k}.png")
        write_video(folder / f"{k}.mp4", list(rng.integers(0, 256, (6, 24, 32, 3), np.uint8)), fps=8)
        lines.append((folder / f"{k}.mp4", k % 2))
    write_list(folder / "videos.csv", lines)
    return folder


def test_every_row_of_the_paper_is_there_once_with_its_figures():
    rows = [(row, figures) for recipe in recipes_table().read_recipes().values() for row, figures in recipe["paper"].items()]
    rows += [(f"{table}, {row}", figures) for table, others in recipes_table().OTHERS.items() for row, figures in others.items()]
    assert len({row for row, _ in rows}) == len(rows)
    assert dict(rows) == paper()


def test_keys_of_the_recipes():
    assert len(recipe_names()) == len(set(recipe_names())) == 62
    for name in recipe_names():
        recipe = load_recipe(name)
        assert set(recipe) <= {"about", "paper", "needs", "sweep", "ours", "pretrain", "finetune", "evaluate"}, name
        assert recipe["about"], name
        assert "\n" not in recipe["about"], name
        if name.startswith("finetune-"):
            assert set(recipe) == {"about", "finetune", "evaluate"}, name
        elif "paper" in recipe:
            assert all(f"finetune-{data}" in recipe_names() for data in recipes_table().data_sets(recipe)), name


def test_a_row_has_what_its_table_shares_and_its_own():
    """Against the file itself."""
    table = yaml.safe_load(FOLDER.joinpath("table8.yaml").read_text())
    row, shared = table["rows"]["videos"], table["shared"]
    assert load_recipe("table8-videos") == {**row, "needs": shared["needs"], "pretrain": {**shared["pretrain"], **row["pretrain"]}}
    assert read_recipe("table8-videos", "pretrain") == {"clips": "videos", "epochs": 3200, "base_lr": 3e-4}
    for name in ("table8", "table8-none", "shared"):
        with pytest.raises(ValueError, match=f"no recipe {name}"):
            load_recipe(name)


def test_list_of_recipes():
    lines = list_recipes().splitlines()
    assert [line.split()[0] for line in lines] == recipe_names()
    assert any(line.startswith("table6-pass-100k ") and line.endswith("  100,000 images of PASS, with no people in them") for line in lines)
    tables = [int(match[1]) for line in lines if (match := re.match(r"table(\d+)-", line))]
    assert tables == sorted(tables)


def defaults():
    """Of the options of pre-training, by name."""
    return {name: getattr(from_values(PretrainOptions, {"out": "run"}), name) for name in FIELDS}


def test_pre_training_options_load_and_differ_from_the_defaults():
    usual = defaults()
    for name in PRETRAINING:
        values, recipe = read_recipe(name, "pretrain"), load_recipe(name)
        needed = {option: [what] if option == "aug_images" else what for option, what in needs(recipe).items()}
        assert not set(needed) & set(values), name
        options = from_values(PretrainOptions, values | needed | {"out": "run"})
        assert all(getattr(options, key) != usual[key] for key in values), f"{name} writes a default down again"
        for option, tried in recipe.get("sweep", {}).get("pretrain", {}).items():
            assert tried
            assert option in set(FIELDS) - set(values)


def test_what_all_of_the_papers_rows_share():
    """Section 4: ViT-B, 16 frames of 224, mask ratio 0.75, 2,000 epochs unless otherwise noted; transforms by the recipe's name."""
    for name in PRETRAINING:
        if name == "demo":
            continue
        options = from_values(PretrainOptions, read_recipe(name, "pretrain") | {"out": "run", "videos": "list"})
        assert (options.model, options.frame_size, options.num_frames) == (None, None, None)  # those of ViT-B
        assert options.mask_ratio == (0.9 if name == "table12-videos" else 0.75)
        own_schedule = {"table8-videos": 3200, "figure4-videos": 3200, "table12-videos": 1600}
        assert options.epochs == own_schedule.get(name, 2000)
        if name != "table12-videos":
            assert (options.batch_size, options.base_lr) == (192, 3e-4)
        if match := re.fullmatch(r"table[23]-(.+)", name):
            assert "-".join(options.transforms).replace("_", "-") == match[1]
        else:
            assert list(options.transforms) == ["zoom", "affine"]
        expected = "none" if re.match(r"table[23]-", name) else "videomix" if name == "table4-videomix" else "mixup"
        assert options.mix == expected
        if match := re.search(r"-(\d+)k$", name):
            assert options.limit == 1000 * int(match[1])
        table = int(re.search(r"\d+", name)[0])
        kinds = {8: {"videos", "pmg-aug"}, 9: {"pmg-aug"}, 10: {"mosi", "perlin"}, 12: {"videos"}, 13: {"videos"}}
        assert name.startswith("figure") or options.clips in kinds.get(table, {"pmg"})


def test_curves_share_the_settings_of_their_tables():
    for curve, row in (("figure4-videos", "table8-videos"), ("figure4-pseudo-motion", "table4-mixup")):
        assert read_recipe(curve, "pretrain") == read_recipe(row, "pretrain")
    for name in ("table5-hmdb51-to-ucf101", "table5-ucf101-to-hmdb51"):
        assert read_recipe(name, "pretrain") == read_recipe("table4-mixup", "pretrain")


def test_rows_that_pre_train_on_as_many_clips_take_as_many_steps(data):
    """An epoch of MoSI shows every image once too; on the same list, Table 10's row is as long as the one of Table 4."""
    lengths = set()
    for name in ("table10-mosi", "table4-mixup", "table2-zoom"):
        arguments = ["--recipe", name, "--videos", str(data / "videos.csv"), "--out", "run", "--no-bank", *TINY]
        lengths.add(len(pretrain.make_task(parse(PretrainOptions, "pmg-pretrain", "", arguments), CPU).source))
    assert lengths == {4}


def tiny(name, data):
    """Options of a recipe, at the size of a thumbnail."""
    recipe = load_recipe(name)
    values, needed = dict(recipe["pretrain"]), set(needs(recipe)) | set(recipe.get("sweep", {}).get("pretrain", {}))
    given = {"batch-size": "2"}
    given |= {"videos": str(data / "videos.csv")} if "videos" in needed else {}
    given |= {"images": str(data / "images")} if "images" in needed else {}
    given |= {"aug-images": str(data / "images")} if "aug_images" in needed else {}
    given |= {"limit": "4"} if "limit" in needed or "limit" in values else {}
    given |= {"classes": "1", "limit": "2"} if "classes" in needed else {}
    flags = [*TINY, *(part for option, value in given.items() for part in (f"--{option}", value))]
    return parse(PretrainOptions, "pmg-pretrain", "", ["--recipe", name, "--out", "run", *flags])


def test_every_recipe_of_pre_training_gives_a_loss(data):
    """Those that differ in more than length and learning rate, on one batch; the loop has tests of its own."""
    free = {"epochs", "base_lr", "min_lr", "warmup_epochs", "save_every", "picture_every", "mask_ratio", "max_steps"}
    tried = set()
    for name in PRETRAINING:
        options = tiny(name, data)
        key = str({field: getattr(options, field) for field in FIELDS if field not in free})
        if key in tried:
            continue
        tried.add(key)
        torch.manual_seed(0)
        task, ids = pretrain.make_task(options, CPU), torch.arange(2)
        loss = task.objective(*task.inputs(task.source.get(ids), ids, CPU))
        assert 0.1 < float(loss.detach()) < 4, name
    assert len(tried) > 25


def test_two_steps_of_fine_tuning(data, tmp_path):
    """And a test of the model, for every recipe that differs from the others."""
    videos, done = str(data / "videos.csv"), set()
    for name in OF_DATA_SETS:
        training, testing = read_recipe(name, "finetune"), read_recipe(name, "evaluate")
        if (key := repr((training, testing))) in done:
            continue
        done.add(key)
        out = tmp_path / name
        lists = ["--train", videos, "--val", videos, "--batch-size", "2"]
        trainer.finetune(["--recipe", name, *lists, "--out", str(out), *TINY])
        trainer.evaluate([str(out), "--recipe", name, "--test", videos, "--cpu"])
        tested = yaml.safe_load((out / "test.json").read_text())
        assert (tested["clips"], tested["crops"], tested["videos"]) == (testing["clips"], testing["crops"], 4)
        assert tested["sampling"] == training.get("sampling", "dense")
    assert len(done) == 4


def test_fine_tuning_recipes_are_videomaes():
    """Its published scripts: epochs, batch, learning rate, layer decay, drop path, dropout of the head, copies, least learning rate."""
    names = ("epochs", "batch_size", "base_lr", "layer_decay", "drop_path", "head_dropout", "copies", "min_lr")
    small = (100, 128, 5e-4, 0.70, 0.2, 0.5, 2, 1e-5)
    published = {"kinetics400": (75, 384, 5e-4, 0.75, 0.1, 0.0, 2, 1e-6), "ssv2": (30, 384, 5e-4, 0.75, 0.1, 0.0, 2, 1e-6)}
    published["mini-ssv2"] = published["ssv2"]
    views = {"ssv2": (2, 3), "mini-ssv2": (2, 3), "hmdb51": (10, 3)}
    for name in OF_DATA_SETS:
        data = name.removeprefix("finetune-")
        values = read_recipe(name, "finetune") | {"train": "list", "val": "list", "out": "run"}
        options = from_values(FinetuneOptions, values)
        assert tuple(getattr(options, key) for key in names) == published.get(data, small)
        assert (options.sampling, options.flip) == (("segments", 0.0) if "ssv2" in data else ("dense", 0.5))
        testing = read_recipe(name, "evaluate")
        assert (testing["clips"], testing["crops"]) == views.get(data, (5, 3))


def test_commands_of_the_page_are_understood():
    """Bash runs every block, with functions in place of the commands; our parsers read what these were given."""
    table = recipes_table()
    show = "".join(f'pmg-{c}() {{ printf "%s\\t" {c} "$@"; echo; }}\n' for c in ("pretrain", "finetune", "evaluate"))
    blocks = [line for name, recipe in table.read_recipes().items() for line in table.commands(name, recipe)]
    printed = subprocess.run(["bash", "-euc", show + "\n".join(blocks)], capture_output=True, text=True, check=True).stdout
    configs = {"pretrain": PretrainOptions, "finetune": FinetuneOptions, "evaluate": EvaluateOptions}
    outs, called, understood = [], [], set()
    for line in printed.splitlines():
        command, *flags = line.rstrip("\t").split("\t")
        called.append(command)
        assert "$" not in line
        given = dict(pairwise(flags))
        if command == "evaluate":
            assert flags[0] in outs
        else:
            assert given.get("--init") in {None, *outs}
            outs.append(given["--out"])
        kind = (command, given["--recipe"], *(flag for flag in flags if flag.startswith("--")))
        if kind not in understood:
            assert parse(configs[command], f"pmg-{command}", "", flags)
            understood.add(kind)
    assert len(outs) == len(set(outs))
    assert called.count("finetune") == called.count("evaluate") > called.count("pretrain") > 80


def test_page_of_tables(tmp_path):
    table = recipes_table()
    table.make(tmp_path / "generated")
    page = (tmp_path / "generated" / "recipes.md").read_text()
    for label, figures in paper().items():
        row = label.partition(", ")[2]
        numbers = [str(figure) for figure in figures.values() if figure is not None]
        assert any(f"| {row} |" in line and all(n in line for n in numbers) for line in page.splitlines()), label
    linked = set(re.findall(r"\(#([^)]+)\)", page))
    assert linked == set(re.findall(r"^### (.+)$", page, re.M)) == set(table.read_recipes())


def test_a_measured_figure_is_shown(monkeypatch):
    table = recipes_table()
    recipe = {"about": "x", "paper": {"Table 2, Zoom": {"ucf101": 81.2, "hmdb51": 44.5}}, "ours": {"ucf101": 80.0}, "pretrain": {}}
    assert "| Zoom | [a](#a) | UCF101 81.2, HMDB51 44.5 | UCF101 80.0 |" in table._table("Table 2", {"a": recipe})


def test_names_of_recipes_in_the_docs_exist():
    known = set(recipe_names())
    for path in [*DOCS.glob("*.md"), DOCS.parent / "README.md"]:
        named = set(re.findall(r"--recipe ([a-z][\w-]+)(?=[\s`]|$)", path.read_text()))
        assert named <= known, f"{path.name}: {named - known}"
