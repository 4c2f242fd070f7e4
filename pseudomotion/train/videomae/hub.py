"""Saving a model so that others can use it: with its preprocessing, its class names, and a card that says how it was made."""

import json
from pathlib import Path

from transformers import PreTrainedModel, VideoMAEForVideoClassification

from pseudomotion.files import MADE_BY
from pseudomotion.train.engine.log import read_metrics
from pseudomotion.train.engine.options import CONFIG
from pseudomotion.train.videomae.model import IMAGENET_MEAN, IMAGENET_STD

_CARD = """---
library_name: transformers
pipeline_tag: {task}
tags:
- videomae
- pseudomotion
---

{title}, {made_by}.

```python
{usage}
```

{numbers}

Options of the run:

```yaml
{recipe}
```
"""
_CLASSIFY = """from transformers import pipeline

classify = pipeline("video-classification", "{folder}", frame_sampling_rate={stride})
print(classify("video.mp4"))"""
_FINETUNE = """from transformers import VideoMAEForVideoClassification

model = VideoMAEForVideoClassification.from_pretrained("{folder}", num_labels=10)"""


def save_for_hub(model: PreTrainedModel, folder: Path, run: Path) -> None:
    """Write a model to a folder as ``save_pretrained`` does, with ``preprocessor_config.json`` and a model card, ``README.md``.

    Args:
        model: its config holds the names of its classes, if it has classes.
        folder: existing and empty.
        run: folder of its training run, whose options and numbers go into the card.

    """
    model.save_pretrained(folder)
    size = model.config.image_size
    processing = {
        "image_processor_type": "VideoMAEImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": size},
        "resample": 2,  # bilinear
        "do_center_crop": True,
        "crop_size": {"height": size, "width": size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(IMAGENET_MEAN),
        "image_std": list(IMAGENET_STD),
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processing, indent=2) + "\n")
    classifier = isinstance(model, VideoMAEForVideoClassification)
    recipe = (run / CONFIG).read_text().strip() if (run / CONFIG).is_file() else "unknown"
    stride = next((line.split(":")[1].strip() for line in recipe.splitlines() if line.strip().startswith("stride:")), "4")
    card = _CARD.format(
        task="video-classification" if classifier else "feature-extraction",
        title=f"VideoMAE, {'fine-tuned to classify videos' if classifier else 'pre-trained by masked modeling'}",
        made_by=MADE_BY,
        usage=(_CLASSIFY if classifier else _FINETUNE).format(folder=run.name, stride=stride),
        numbers=_numbers(run),
        recipe=recipe,
    )
    (folder / "README.md").write_text(card)


def _numbers(run: Path) -> str:
    """A table of what the run logged: the first and the last value of each number that tells how well it went."""
    rows = read_metrics(run)
    names = sorted({name for row in rows for name in row if name == "loss" or name.startswith("val_")})
    lines = ["| | first | last |", "|---|---|---|"]
    for name in names:
        values = [(row["step"], row[name]) for row in rows if name in row]
        cells = (f"{value:.4g} (step {step})" for step, value in (values[0], values[-1]))
        lines.append(f"| {name.replace('_', ' ')} | {' | '.join(cells)} |")
    return "\n".join(lines) if names else "No numbers were logged."
