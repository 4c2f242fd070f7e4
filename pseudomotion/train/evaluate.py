"""``pmg-evaluate``: test a fine-tuned model on several clips and crops of every video."""

import json
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from jaxtyping import Bool, Float32, Int64
from torch import Tensor
from torchmetrics.functional.classification import multiclass_accuracy
from tqdm import tqdm
from transformers import VideoMAEForVideoClassification

from pseudomotion.files import MADE_BY, check_output, whole_file
from pseudomotion.source import batches
from pseudomotion.train.engine.checkpoints import load_model
from pseudomotion.train.engine.loop import make_accelerator
from pseudomotion.train.engine.options import CONFIG
from pseudomotion.train.engine.stream import to_device
from pseudomotion.train.options import EvaluateOptions as EvaluateOptions
from pseudomotion.train.recipes import read_recipe
from pseudomotion.train.video.views import EvaluationViews, Sampling
from pseudomotion.train.videomae.model import normalize, with_position_buffers
from pseudomotion.train.videomae.pretrained import model_folder

RESULT = "test.json"


def run(options: EvaluateOptions) -> None:
    """Test, print the accuracy, and write it down."""
    _weights(options)  # that there is no model is said first
    out = check_output(options.out or Path(options.run) / RESULT, inputs=[options.test], force=options.force)
    accelerator = make_accelerator(options)
    result = evaluate(options, accelerator)
    accelerator.print(
        f"top-1 {result['top1']:.2f} %, top-5 {result['top5']:.2f} %, mean of classes {result['mean_class_top1']:.2f} %: "
        f"{result['videos']} videos, {options.clips} clips x {options.crops} crops, "
        f"{len(result['skipped'])} skipped, {len(result['missing'])} of these because they do not exist"
    )
    if accelerator.is_main_process:
        with whole_file(out) as file:
            file.write_text(json.dumps({"made_by": MADE_BY, **result}, indent=2) + "\n")
    accelerator.print(f"{out}: these, and every class")


def evaluate(options: EvaluateOptions, accelerator: Accelerator) -> dict[str, Any]:
    """Test a model, on all processes: what stands in ``test.json``, accuracies in percent.

    Raises:
        OSError: for files that are not there.
        ValueError: where the list has classes that the model does not have, or not one video can be read.

    """
    weights = _weights(options)
    model = with_position_buffers(load_model(VideoMAEForVideoClassification, weights)).to(accelerator.device).eval()
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
        "missing": [path for path in skipped if not Path(path).exists()],
        "skipped": skipped,
        "list": options.test,
        "weights": str(weights),
        "clips": options.clips,
        "crops": options.crops,
        "num_frames": sampling.num_frames,
        "sampling": sampling.kind,
        "stride": sampling.stride,
    }


def _weights(options: EvaluateOptions) -> Path:
    """The folder of the model that is tested."""
    return model_folder(options.run if options.weights == "model" else Path(options.run) / options.weights)


def _sampling(options: EvaluateOptions, num_frames: int) -> Sampling:
    """As the run was trained, where the options do not say."""
    path = Path(options.run) / CONFIG
    trained = read_recipe(str(path), "finetune") if path.is_file() else {}
    usual = Sampling()
    kind = options.sampling or trained.get("sampling", usual.kind)
    return Sampling(num_frames, kind, options.stride or trained.get("stride", usual.stride))


@torch.no_grad()
def predict(
    model: VideoMAEForVideoClassification,
    videos: EvaluationViews,
    accelerator: Accelerator,
    *,
    batch_size: int,
    num_workers: int = 0,
    progress: bool = False,
) -> tuple[Float32[Tensor, "n classes"], Bool[Tensor, " n"]]:
    """Class probabilities of videos: the softmax of every view, averaged over a video's views. All processes share the work.

    ``batch_size`` clips at a time, in each process. Returns the probabilities, on the CPU, in the order of the list, and which videos could
    be read: those of the others are 0.
    """
    views = videos.clips * videos.crops
    probabilities = torch.zeros(len(videos), model.config.num_labels, device=accelerator.device)
    seen = torch.zeros(len(videos), device=accelerator.device)
    at_once = max(1, batch_size // views)
    rank, world_size = accelerator.process_index, accelerator.num_processes
    reading = batches(videos, at_once, shuffle=False, num_workers=num_workers, rank=rank, world_size=world_size, even=False)
    bar = tqdm(total=len(range(rank, len(videos), world_size)), unit="video", disable=not (progress and accelerator.is_main_process))
    with bar:
        for (clips, _, numbers), ids in reading:
            pixels = normalize(to_device(clips.flatten(0, 1), accelerator.device))
            with accelerator.autocast():
                logits = torch.cat([model(pixel_values=part).logits for part in torch.split(pixels, batch_size)])
            own = numbers == ids  # what was read in place of a broken video is none of its own
            probabilities[numbers[own]] = logits.float().softmax(1).reshape(len(ids), views, -1).mean(1)[own]
            seen[numbers[own]] = 1
            bar.update(len(ids))
    return accelerator.reduce(probabilities, "sum").cpu(), accelerator.reduce(seen, "sum").cpu() > 0


def top_scores(probabilities: Float32[Tensor, "n classes"], labels: Int64[Tensor, " n"]) -> dict[str, float]:
    """Top-1 and top-5 accuracy over all videos, in percent; with fewer than five classes the latter is 100."""
    num_classes = probabilities.shape[1]
    return {
        f"top{k}": 100 * float(multiclass_accuracy(probabilities, labels, num_classes, top_k=min(k, num_classes), average="micro"))
        for k in (1, 5)
    }


def class_scores(probabilities: Float32[Tensor, "n classes"], labels: Int64[Tensor, " n"]) -> dict[int, float]:
    """Top-1 accuracy of every class that has videos, in percent."""
    each = multiclass_accuracy(probabilities, labels, probabilities.shape[1], average=None)
    return {label: 100 * float(each[label]) for label in sorted(set(labels.tolist()))}
