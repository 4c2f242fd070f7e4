"""``pmg-evaluate``: test a fine-tuned model on several clips and crops of every video."""

import json
from collections.abc import Sequence
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import gather_object
from transformers import VideoMAEForVideoClassification
from transformers.utils import logging as transformers_logging

from pseudomotion.files import whole_file
from pseudomotion.train.engine.checkpoints import load_model
from pseudomotion.train.engine.loop import MODEL
from pseudomotion.train.engine.options import CONFIG, option, parse
from pseudomotion.train.recipes import read_recipe
from pseudomotion.train.video.views import SAMPLINGS, EvaluationViews, Sampling
from pseudomotion.train.videomae.classification import BEST, class_scores, predict, top_scores
from pseudomotion.train.videomae.classifier import model_folder

TEST, COMPUTING = "test", "computing"
RESULT = "test.json"


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """Options of ``pmg-evaluate``."""

    run: str = option(MISSING, "folder of a run of pmg-finetune, or of a classifier that transformers saved", group=TEST, positional=True)
    test: str = option(MISSING, 'list of videos, lines of "path label"', group=TEST)
    clips: int = option(5, "clips of every video, evenly placed in time", group=TEST)
    crops: int = option(3, "crops of every clip, evenly placed along the long side of the frame", group=TEST)
    weights: str = option(
        MODEL, "of a run: model, after the last step; best, of the best measurement on --val", group=TEST, choices=(MODEL, BEST)
    )
    sampling: str | None = option(None, "as in pmg-finetune; None for that of the run, else dense", group=TEST, choices=SAMPLINGS)
    stride: int | None = option(
        None, "frames of the video from one frame of a dense clip to the next; None for the run's, else 4", group=TEST
    )
    out: str | None = option(None, f"JSON file for the result; None for {RESULT} in the run's folder", group=TEST)
    batch_size: int = option(32, "clips at a time, per process", group=COMPUTING)
    num_workers: int = option(0, "processes that read videos, per process", group=COMPUTING)
    precision: str = option("no", "no: float32; bf16: autocast", group=COMPUTING, choices=("no", "bf16"))
    cpu: bool = option(False, "compute on the CPU though there is a GPU", group=COMPUTING)

    def __post_init__(self) -> None:
        """Check the numbers that nothing else checks."""
        if self.batch_size < 1 or self.num_workers < 0:
            raise ValueError(f"batch_size must be at least 1, num_workers at least 0, got {self.batch_size}, {self.num_workers}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    options = parse(EvaluateOptions, "pmg-evaluate", "Test a fine-tuned VideoMAE on several clips and crops of every video.", arguments)
    transformers_logging.disable_progress_bar()
    accelerator = Accelerator(mixed_precision=options.precision, cpu=options.cpu)
    result = evaluate(options, accelerator)
    out = Path(options.out) if options.out else Path(options.run) / RESULT
    if accelerator.is_main_process:
        with whole_file(out) as file:
            file.write_text(json.dumps(result, indent=2) + "\n")
    accelerator.print(
        f"top-1 {result['top1']:.2f} %, top-5 {result['top5']:.2f} %, mean of classes {result['mean_class_top1']:.2f} %: "
        f"{result['videos']} videos, {options.clips} clips x {options.crops} crops, {len(result['skipped'])} skipped; {out}"
    )
    return 0


def evaluate(options: EvaluateOptions, accelerator: Accelerator) -> dict[str, Any]:
    """Test a model, on all processes.

    Returns:
        "top1", "top5" and "mean_class_top1" in percent; "class_top1", in percent by the class's name; "videos", the number that these are
        of; "skipped", what is wrong with those that could not be read, by path; and how it was tested.

    Raises:
        OSError: for files that are not there.
        ValueError: where the list has classes that the model does not have, or not one video can be read.

    """
    folder = Path(options.run)
    weights = model_folder(folder / BEST if options.weights == BEST else folder)
    model = load_model(VideoMAEForVideoClassification, weights).to(accelerator.device).eval()
    sampling = _sampling(options, model.config.num_frames)
    videos = EvaluationViews(options.test, sampling, model.config.image_size, clips=options.clips, crops=options.crops)
    if (largest := int(videos.labels.max())) >= model.config.num_labels:
        raise ValueError(f"{options.test} must have classes from 0 to {model.config.num_labels - 1}, it has {largest}")
    probabilities, seen = predict(model, videos, accelerator, batch_size=options.batch_size, num_workers=options.num_workers, progress=True)
    probabilities, labels = probabilities[seen], videos.labels[seen]
    skipped = {str(videos.paths[index]): fault for found in gather_object([videos.skipped]) for index, fault in sorted(found.items())}
    of_classes = class_scores(probabilities, labels)
    return {
        **top_scores(probabilities, labels),
        "mean_class_top1": sum(of_classes.values()) / len(of_classes),
        "class_top1": {str(model.config.id2label[label]): score for label, score in of_classes.items()},
        "videos": len(labels),
        "skipped": skipped,
        "list": options.test,
        "weights": str(weights),
        "clips": options.clips,
        "crops": options.crops,
        "num_frames": sampling.num_frames,
        "sampling": sampling.kind,
        "stride": sampling.stride,
    }


def _sampling(options: EvaluateOptions, num_frames: int) -> Sampling:
    """As the run was trained, where the options do not say."""
    path = Path(options.run) / CONFIG
    trained = read_recipe(str(path), "finetune") if path.is_file() else {}
    usual = Sampling()
    kind = options.sampling or trained.get("sampling", usual.kind)
    return Sampling(num_frames, kind, options.stride or trained.get("stride", usual.stride))
