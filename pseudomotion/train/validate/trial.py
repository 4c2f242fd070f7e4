"""One trial: pre-train an encoder, or draw a new one, and measure what it is worth. Both by the tasks of the shipped commands."""

import dataclasses
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor

from pseudomotion.images import ImageBank, VideoFrames
from pseudomotion.images.synthetic import SOURCES
from pseudomotion.train import finetune, pretrain
from pseudomotion.train.engine.log import read_metrics
from pseudomotion.train.engine.loop import make_accelerator, train
from pseudomotion.train.engine.options import from_values, parse, to_words
from pseudomotion.train.evaluate import predict
from pseudomotion.train.probe import MotionProbe, Motions, textures
from pseudomotion.train.validate.direction import Windows, ask, make_windows, still
from pseudomotion.train.validate.options import ValidateOptions, words_of
from pseudomotion.train.videomae.classifier import classification_model
from pseudomotion.train.videomae.model import SIZES, model_config, to_colors
from pseudomotion.train.videomae.objective import paint
from pseudomotion.video.list_file import read_list, write_list
from pseudomotion.video.read import read_frames

LINEAR_LR = 5.0  # a linear layer takes, and needs, a higher learning rate than a transformer
PAPER_FRAMES = 16
SPARE = 1.5  # side of images and of videos in memory over that of the frames
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
SHOWN_CLIPS = 3
REAL = ("videos", "pmg-aug")  # kinds of clips that are read from videos

Row = dict[str, Any]
Clips = dict[Path, UInt8[Tensor, "3 T H W"]]


class Data:
    """What the trials of a run read: made or decoded once, and kept."""

    def __init__(self, options: ValidateOptions) -> None:
        self.options = options
        self.folder = Path(options.out) / "data"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.size = SIZES[options.model]
        self.side = round(self.size.frame_size * SPARE)
        self.labeled = lru_cache(maxsize=1)(self._labeled)
        if options.train and options.test:
            self.training, self.testing = dict(read_list(options.train)), dict(read_list(options.test))
            if shared := {self.film(path) for path in self.training} & {self.film(path) for path in self.testing}:
                raise ValueError(f"--train and --test must not share films, they share {len(shared)}, such as {min(shared)}")

    def film(self, path: Path) -> str:
        """The film of a real video: what ``--film`` finds in its name; without it every video is a film."""
        if not self.options.film:
            return f"{path.parent.name}/{path.name}"
        found = re.search(self.options.film, path.name)
        if not found:
            raise ValueError(f"film must be found in the name of every video, {self.options.film!r} is not in {path.name}")
        return found[0]

    @cached_property
    def videos(self) -> Clips:
        """All frames of the real videos, at half again the side of the model's frames."""
        found = {}
        for path in sorted({*self.training, *self.testing}):
            frames = _shrunk(read_frames(path, lambda total: list(range(total))), self.side)
            found[path] = to_gray(frames, 0) if self.options.gray else frames
        return found

    @cached_property
    def windows(self) -> Windows:
        """Clips of the real videos whose motion is measured."""
        sizes = {"num_frames": self.size.num_frames, "size": self.size.frame_size, "stride": self.options.stride}
        return make_windows(self.videos, self.training, self.testing, film=self.film, **sizes)

    def images(self, source: str | None, seed: int) -> Path:
        """The bank file of images to pre-train on, others for every seed: of a synthetic source, or video frames, or textures."""
        kind = source or ("frames" if self.options.train else "textures")
        path = self.folder / f"{kind}-{seed}.safetensors"
        if not path.is_file():
            ids = torch.arange(self.options.images)
            if source:
                made: Any = _Images(SOURCES[source](size=self.side).get(ids + seed * self.options.images))
            elif self.options.train:
                made = VideoFrames(self.options.train, self.side, seed=seed)
            else:
                made = _Images(textures(ids + (2 * seed + 1) * 10**6, self.side))  # no texture serves two purposes
            ImageBank(made).save(path)
        return path

    def _labeled(self, seed: int) -> tuple[Clips, tuple[Path, Path]]:
        """Labeled clips and the lists to train and test on. Of the motion probe, those to test on are the same for all seeds."""
        if self.options.train and self.options.test:
            return self.videos, (Path(self.options.train), Path(self.options.test))
        options = self.options
        clips: Clips = {}
        lists = (self.folder / f"train-{seed}.csv", self.folder / "test.csv")
        for path, count, first, own in (
            (lists[0], options.train_clips, (2 * seed + 2) * 10**6, seed + 1),
            (lists[1], options.test_clips, 0, 0),
        ):
            images = textures(torch.arange(options.images) + first, self.side)
            probe = MotionProbe(images, self.size.num_frames, self.size.frame_size, own, motions=Motions(light=0.4))
            made, labels = probe.get(torch.arange(count))  # (count, T, 3, h, w)
            names = [(self.folder / path.stem / f"{k}.mp4").absolute() for k in range(count)]
            clips |= dict(zip(names, made.transpose(1, 2), strict=True))
            write_list(path, list(zip(names, labels.tolist(), strict=True)))
        return clips, lists


def _common_values(options: ValidateOptions, seed: int) -> Row:
    """Options that pre-training and fine-tuning share."""
    values: Row = {"seed": seed, "batch_size": options.batch_size, "base_lr": options.base_lr, "min_lr": 1e-5, "clip_grad": 1.0}
    return values | {"log_with": None, "log_every": 1, "save_every": "1000000", "cpu": options.cpu}


def pretrain_encoder(data: Data, arm: str, seed: int, steps: int, encoder: Path, picture: Path) -> list[float]:
    """Pre-train by ``pmg-pretrain``'s task; write the model and a picture of some clips. Returns the masked loss of each step."""
    options, words = data.options, words_of(arm) or []
    with tempfile.TemporaryDirectory(prefix=".running-", dir=options.out) as name:
        values = _common_values(options, seed) | {"out": name + "/run", "model": options.model, "mix": "none", "max_steps": steps}
        values |= {"picture_every": 10**9} | ({"videos": options.train, "stride": options.stride} if options.train else {})
        asked = parse(pretrain.PretrainOptions, "pmg-pretrain", "", [*to_words(values), *words])
        # A clip has fewer steps than the paper's 16 frames, so they are larger.
        changed: Row = {"strength": asked.strength * (PAPER_FRAMES - 1) / (data.size.num_frames - 1)}
        if asked.clips not in REAL:
            changed |= {"videos": None, "source": None, "images": asked.images or [str(data.images(asked.source, seed))]}
        asked = dataclasses.replace(asked, **changed)
        accelerator = make_accelerator(asked)
        task: Any = pretrain.make_task(asked, accelerator.device)
        if asked.clips in REAL:
            read_from_memory(task.source, data.videos, motionless=False)
        if options.gray:
            channels = -3 if asked.clips == "pmg" else -4  # of images (B, 3, H, W), with partners (B, 2, 3, H, W); of clips (B, 3, T, h, w)
            make_clips: pretrain.MakeClips = task.make_clips
            task.make_clips = lambda items, motion, textures: make_clips(to_gray(items, channels), motion, textures)
            if (shown := task.textures) is not None:
                task.textures = torch.cat([to_gray(shown[:, :3], 1), shown[:, 3:]], 1)  # alpha stays
        model = train(task, asked, "pretrain", accelerator)
        ids = torch.arange(SHOWN_CLIPS)
        clips = task.inputs(task.source.get(ids), ids, accelerator.device).pixels  # (B, T, 3, h, w)
        picture.parent.mkdir(exist_ok=True)
        paint(picture, to_colors(clips).clamp(0, 1)[:, None])
        losses = [round(each["loss"], 5) for each in read_metrics(Path(name) / "run") if "loss" in each]
        encoder.parent.mkdir(exist_ok=True)
        shutil.rmtree(encoder, ignore_errors=True)
        shutil.move(model, encoder)
    return losses


def measure(data: Data, probe: str, init: Path | None, seed: int, steps: int, *, motionless: bool) -> Row:
    """Measure an encoder, or new weights, in one way of ``PROBES``; ``motionless``: all clips stand still.

    Returns:
        For each question that the probe asks, which test clips were right, "1" or "0" each, and the film of each.

    """
    if probe == "direction":
        torch.manual_seed(seed)
        model = classification_model(init or model_config(data.options.model), 2)
        windows = dataclasses.replace(data.windows, clips=still(data.windows.clips)) if motionless else data.windows
        return {name: _answers(right, films) for name, (right, films) in ask(model, windows).items()}
    options = data.options
    memory, (training, testing) = data.labeled(seed)
    with tempfile.TemporaryDirectory(prefix=".running-", dir=options.out) as name:
        values = _common_values(options, seed) | {"out": name + "/run", "max_steps": steps, "train": str(training), "val": str(testing)}
        values |= {"model": options.model} if init is None else {"init": str(init)}
        values |= {"copies": 1, "randaugment": 0, "erasing": 0.0, "mixup": 0.0, "cutmix": 0.0, "evaluate_every": 1e9}
        values |= {"drop_path": 0.0, "head_dropout": 0.0, "label_smoothing": 0.0, "layer_decay": 1.0}
        values |= {"crop": [0.5, 1.0], "stride": options.stride} if options.train else {"crop": [1.0, 1.0], "flip": 0.0, "stride": 1}
        values |= {"shots": options.shots} if probe == "low-shot" else {}
        values |= {"linear_probe": True, "base_lr": LINEAR_LR * options.base_lr} if probe == "linear" else {}
        tuning = from_values(finetune.FinetuneOptions, values)
        accelerator = make_accelerator(tuning)
        task: Any = finetune.make_task(tuning)
        for source in (task.source, task.validation):
            read_from_memory(source, memory, motionless=motionless)
        answers: list[Tensor] = []

        def evaluate(*_: Any) -> dict[str, float]:
            probabilities, _seen = predict(task.model, task.validation, accelerator, batch_size=256)
            answers.append(probabilities.argmax(1) == task.validation.labels)
            return {}

        task.evaluate = evaluate  # once, at the end, instead of keeping a best model
        train(task, tuning, "finetune", accelerator)
    films = [data.film(path) if options.train else path.stem for path in task.validation.paths]
    return {probe: _answers(answers[-1].numpy(), films)}


def read_from_memory(source: Any, clips: Mapping[Path, Tensor], *, motionless: bool) -> None:
    """Let a source of videos take their frames from memory; ``motionless``: all of a clip's frames are its middle one."""

    def frames(index: int, pick: Callable[[int], list[int]]) -> UInt8[Tensor, "3 T H W"]:
        video = clips[source.paths[index]]
        chosen = pick(video.shape[1])
        return video[:, [chosen[len(chosen) // 2]] * len(chosen) if motionless else chosen]

    source.frames = frames


def to_gray(pixels: Tensor, dim: int) -> Tensor:
    """Luma in all three channels, which lie in the dimension ``dim``; uint8."""
    parts = zip(LUMA, pixels.unbind(dim), strict=True)
    luma = sum((share * part.float() for share, part in parts), torch.zeros(())).round().to(torch.uint8)
    return torch.stack([luma] * 3, dim)


class _Images:
    """Images in memory, as a source."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def get(self, ids: Tensor) -> Tensor:
        return self.images[ids % len(self)]


def _answers(right: Any, films: list[str]) -> Row:
    return {"right": "".join("1" if each else "0" for each in right), "films": films}


def _shrunk(frames: UInt8[Tensor, "3 T H W"], side: int) -> UInt8[Tensor, "3 T h w"]:
    scale = min(1.0, side / min(frames.shape[2:]))
    size = [max(1, round(length * scale)) for length in frames.shape[2:]]
    small = torch.nn.functional.interpolate(frames.transpose(0, 1).float(), size, mode="bilinear", antialias=True)
    return small.round().clamp(0, 255).to(torch.uint8).transpose(0, 1)
