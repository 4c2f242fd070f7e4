"""Make the tables and commands of the page on reproducing the paper, from the recipes as they are.

`python docs/recipes_table.py` writes docs/generated/recipes.md; the docs build calls it.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pseudomotion.train.recipes import load_recipe, recipe_names

NAMES = {
    "ucf101": "UCF101",
    "hmdb51": "HMDB51",
    "mini-ssv2": "MiniSSV2",
    "diving48": "Diving48",
    "ikeafa": "IkeaFA",
    "uav-human": "UAV-Human",
    "kinetics400": "Kinetics-400",
}
TITLES = {
    "Table 2": "one transform alone",
    "Table 3": "transforms together",
    "Table 4": "mixing clips",
    "Table 5": "from one video data set to another",
    "Table 6": "real images",
    "Table 7": "synthetic images",
    "Table 8": "PMG Aug",
    "Table 9": "PMG Aug with other images",
    "Table 10": "comparison",
    "Table 11": "the SynAPT benchmark",
    "Table 12": "Kinetics-400",
    "Table 13": "frame difference",
    "Figure 3a": "epochs",
    "Figure 3b": "number of images",
    "Figure 3c": "number of classes",
    "Figure 4": "a few videos of every class",
}
# What a recipe needs, and where the page's commands have it.
PLACES = {
    "training videos of the data set": "lists/$data/train.csv",
    "a frame of every training video of the data set": "banks/$data.safetensors",
    "a frame of every training video of HMDB51": "banks/hmdb51.safetensors",
    "a frame of every training video of UCF101": "banks/ucf101.safetensors",
    "training videos of Kinetics-400": "lists/kinetics400/train.csv",
    "videos of large frame difference": "lists/$data/large.csv",
    "videos of medium frame difference": "lists/$data/medium.csv",
    "videos of small frame difference": "lists/$data/small.csv",
    "images of ImageNet, a folder for each class": "images/imagenet",
    "images of PASS": "images/pass",
    "renders of Shaders1k, a folder for each program": "images/shaders1k",
    "images of PASS, and renders of Shaders1k": "images/pass images/shaders1k",
}
# Rows that are experiments of other methods or architectures, which the library does not have.
OTHERS: dict[str, dict[str, dict[str, float]]] = {
    "Table 10": {
        "MoCo v3 (ViT-B), FT data": {"ucf101": 81.7, "hmdb51": 39.2},
        "3D-ResNet50, VPN": {"ucf101": 49.9, "hmdb51": 23.0},
        "3D-ResNet50, VPN to Kinetics400": {"ucf101": 89.9, "hmdb51": 61.8},
        "TimeSformer, IN-21k to SynAPT": {"ucf101": 89.0, "hmdb51": 54.4, "diving48": 44.9},
        "PPMA, NH-Kinetics + SynAPT": {"ucf101": 92.5, "hmdb51": 71.2, "diving48": 64.0},
        "MoSI (R-2D3D), FT data": {"ucf101": 71.8, "hmdb51": 47.0},
        "MoSI (R(2+1)D), FT data": {"ucf101": 82.8, "hmdb51": 51.8},
        "SP (ViT-B), IN-21k": {"ucf101": 71.9, "hmdb51": 34.0, "diving48": 34.2},
        "SP (ViT-B), ExFractalDB-21k": {"ucf101": 61.5, "hmdb51": 20.8, "diving48": 28.0},
        "SP (ViT-B), VisualAtom-21k": {"ucf101": 58.9, "hmdb51": 20.3, "diving48": 21.4},
    },
    "Table 11": {
        "TimeSformer, IN-21k + Synthetic": {
            "ucf101": 89.0, "hmdb51": 54.4, "mini-ssv2": 51.1, "diving48": 44.9, "ikeafa": 63.6, "uav-human": 25.9,
        },
        "PPMA, NH-Kinetics + Synthetic": {
            "ucf101": 92.5, "hmdb51": 71.2, "mini-ssv2": 67.8, "diving48": 64.0, "ikeafa": 67.9, "uav-human": 38.5,
        },
    },
}  # fmt: skip

Recipe = Mapping[str, Any]


def make(folder: Path) -> None:
    """Write the page's part that comes from the recipes."""
    folder.mkdir(exist_ok=True)
    recipes = read_recipes()
    (folder / "recipes.md").write_text("\n".join(_table(table, recipes) for table in TITLES))


def read_recipes() -> dict[str, Recipe]:
    """The recipes that belong to rows of the paper, by name."""
    return {name: recipe for name in recipe_names() if "paper" in (recipe := load_recipe(name))}


def commands(name: str, recipe: Recipe) -> list[str]:
    """What to type for a recipe: pre-train, fine-tune on each data set that the paper has figures for, test."""
    data = data_sets(recipe)
    needs = {names.partition(" or ")[0].replace("_", "-"): what for names, what in recipe.get("needs", {}).items()}
    given = "".join(f" --{option} {PLACES[what]}" for option, what in needs.items())
    sweeps = recipe.get("sweep", {})
    flags = {command: "".join(f" --{option} ${option}" for option in options) for command, options in sweeps.items()}
    pretrained = f"runs/{name}" + _folders(sweeps.get("pretrain", ())) + ("/$data" if "$data" in given else "")
    run = f"runs/{name}" + _folders(sweeps.get("pretrain", ())) + "/$data" + _folders(sweeps.get("finetune", ()))
    begin = (
        [f"pmg-pretrain --recipe {name}{given}{flags.get('pretrain', '')} --out {pretrained}/pretrained"] if "pretrain" in recipe else []
    )
    finetune = [
        "pmg-finetune --recipe finetune-$data" + (f" --init {pretrained}/pretrained" if begin else ""),
        "  --train lists/$data/train.csv --val lists/$data/val.csv" + f"{flags.get('finetune', '')} --out {run}/finetuned",
    ]
    lines = [" \\\n".join(finetune), f"pmg-evaluate {run}/finetuned --recipe finetune-$data --test lists/$data/val.csv"]
    for option, values in sweeps.get("finetune", {}).items():
        lines = _loop(option, values, lines)
    lines = _loop("data", data, begin + lines) if "$data" in given else begin + _loop("data", data, lines)
    for option, values in sweeps.get("pretrain", {}).items():
        lines = _loop(option, values, lines)
    return lines


def data_sets(recipe: Recipe) -> list[str]:
    """The data sets that a recipe's rows have figures for."""
    return list(dict.fromkeys(key.split()[0] for figures in recipe["paper"].values() for key in figures))


def rows(table: str, recipes: Mapping[str, Recipe]) -> Iterator[tuple[str, str, Mapping[str, float | None], Recipe]]:
    """The rows of a table of the paper: recipe, row, figures, and the recipe itself."""
    for name, recipe in recipes.items():
        for label, figures in recipe["paper"].items():
            if label.startswith(f"{table}, "):
                yield name, label.removeprefix(f"{table}, "), figures, recipe


def _table(table: str, recipes: Mapping[str, Recipe]) -> str:
    lines = [f"## {table}: {TITLES[table]}\n", "| row | recipe | paper, top-1 in % | ours |", "|---|---|---|---|"]
    own = {}
    for name, row, figures, recipe in rows(table, recipes):
        lines.append(f"| {row} | [{name}](#{name}) | {_figures(figures)} | {_ours(figures, recipe)} |")
        if next(iter(recipe["paper"])).startswith(f"{table}, "):
            own[name] = recipe
    lines += [f"| {row} | none | {_figures(figures)} | no part of the library |" for row, figures in OTHERS.get(table, {}).items()]
    for name, recipe in own.items():
        lines += [f"\n### {name}\n", f"{recipe['about']}.\n", "```bash", *commands(name, recipe), "```"]
    return "\n".join(lines) + "\n"


def _figures(figures: Mapping[str, float | None]) -> str:
    if None in figures.values():
        return "a curve, no numbers: " + ", ".join(map(_name, figures))
    return ", ".join(f"{_name(data)} {figure}" for data, figure in figures.items())


def _ours(figures: Mapping[str, float | None], recipe: Recipe) -> str:
    measured = {data: recipe["ours"][data] for data in figures if data in recipe.get("ours", {})}
    if measured:
        return _figures(measured)
    data = ", ".join(dict.fromkeys(NAMES[key.split()[0]] for key in figures))
    others = [what.partition(", a folder")[0] for what in recipe.get("needs", {}).values() if "$data" not in PLACES[what]]
    return f"not run: needs {'; '.join([f'videos of {data}', *others])}"


def _name(key: str) -> str:
    data, _, measure = key.partition(" ")
    return f"{NAMES[data]} {measure}".strip()


def _folders(options: Sequence[str]) -> str:
    return "".join(f"/${option}" for option in options)


def _loop(variable: str, values: Sequence[Any], lines: Sequence[str]) -> list[str]:
    """Lines of shell, done for every value; for a single one, without a loop."""
    if len(values) == 1:
        return [line.replace(f"${variable}", str(values[0])) for line in lines]
    inner = ["  " + line.replace("\n", "\n  ") for line in lines]
    return [f"for {variable} in {' '.join(map(str, values))}; do", *inner, "done"]


if __name__ == "__main__":
    make(Path(__file__).parent / "generated")
