"""How do real videos move? Questions to a frozen encoder that neither the look of a clip nor its amount of change answers.

Does the picture move left or right, up or down; does it grow or shrink; does it turn clockwise? Every clip comes with its twin, which
looks the same and moves the other way: its mirror image, or the clip played backwards. So the answers of chance are exactly half right, a
linear probe of the encoder's mean token is all that is trained, and which way a clip moves is measured by optical flow. Not from the paper.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float64, Int64, UInt8
from torch import Tensor
from transformers import VideoMAEForVideoClassification

from pseudomotion.train.video.views import even_crops
from pseudomotion.train.videomae.model import normalize

WINDOWS = 2  # of each video
BATCH = 64  # clips that are encoded at a time
SPEED_BINS = 4
MOTIONS = ("right", "down", "growth", "clockwise", "speed")  # what is measured, in the order of ``Windows.motion``

Twin = Callable[[UInt8[Tensor, "n 3 t h w"]], UInt8[Tensor, "n 3 t h w"]]


def still(clips: UInt8[Tensor, "n 3 t h w"]) -> UInt8[Tensor, "n 3 t h w"]:
    """The middle frame of each clip, repeated."""
    t = clips.shape[2]
    return clips[:, :, t // 2 : t // 2 + 1].expand(-1, -1, t, -1, -1)


# A question: the motion whose sign is asked for, and the twin that has the other sign.
QUESTIONS: dict[str, tuple[str, Twin]] = {
    "left/right": ("right", lambda clips: clips.flip(4)),  # the mirror image
    "up/down": ("down", lambda clips: clips.flip(3)),
    "growing/shrinking": ("growth", lambda clips: clips.flip(2)),  # played backwards
    "turning": ("clockwise", lambda clips: clips.flip(4)),
}
CONTROL = "left/right, one frame"
SPEEDS = {"still/moving": 2, f"speed in {SPEED_BINS} bins": SPEED_BINS}
ACTION = "class, frozen"
CHANCE = dict.fromkeys((*QUESTIONS, CONTROL), 1 / 2) | {name: 1 / bins for name, bins in SPEEDS.items()}


@dataclass(frozen=True)
class Windows:
    """Short clips of real videos, and how each moves, in the order of ``MOTIONS``.

    That is the sum over the clip of the mean flow to the right and downwards in shares of the frame's side, of the relative growth, of the
    turn in radians; and the mean length of the flow in shares of the side per frame.
    """

    clips: UInt8[Tensor, "n 3 t h w"]
    motion: Float64[np.ndarray, "n 5"]
    videos: Int64[np.ndarray, " n"]  # number of the video of each
    labels: Sequence[int]  # class of each video, -1 for none
    films: Sequence[str]  # of each video; those of one film are drawn together by the bootstrap
    test: Bool[np.ndarray, " n"]  # which clips are for testing


def make_windows(
    videos: Mapping[Path, UInt8[Tensor, "3 total H W"]],
    training: Mapping[Path, int],
    testing: Mapping[Path, int],
    *,
    film: Callable[[Path], str],
    num_frames: int,
    size: int,
    stride: int,
) -> Windows:
    """Cut windows out of the middle square of videos, given with all frames, and measure how they move.

    ``training`` and ``testing`` have the class of each video, -1 for none. The ``stride`` is smaller in videos that are too short for it.

    Raises:
        ImportError: if OpenCV is not installed.
        ValueError: where no video has ``num_frames`` frames.

    """
    chosen = [(path, label, test) for part, test in ((training, False), (testing, True)) for path, label in part.items()]
    clips, motion, numbers = [], [], []
    for number, (path, _, _) in enumerate(chosen):
        total, h, w = videos[path].shape[1:]
        side = min(h, w)
        frames = videos[path][:, :, (h - side) // 2 :, (w - side) // 2 :][..., :side, :side]
        step = min(stride, (total - 1) // (num_frames - 1))
        if not step:
            continue
        steps = flow_steps(frames.float().mean(0).round().to(torch.uint8).numpy())
        way = step * (num_frames - 1)
        for start in sorted({round(k * (total - 1 - way) / max(1, WINDOWS - 1)) for k in range(WINDOWS)}):
            own = steps[start : start + way]  # (way, 5)
            clips.append(even_crops(frames[:, start : start + way + 1 : step], size, 1)[0])
            motion.append([*own[:, :4].sum(0), own[:, 4].mean()])
            numbers.append(number)
    if not clips:
        raise ValueError(f"no video has the {num_frames} frames of a clip")
    videos_of = np.array(numbers)
    return Windows(
        torch.stack(clips),
        np.array(motion),
        videos_of,
        [label for _, label, _ in chosen],
        [film(path) for path, _, _ in chosen],
        np.array([test for _, _, test in chosen])[videos_of],
    )


def flow_steps(frames: UInt8[np.ndarray, "total h w"]) -> Float64[np.ndarray, "steps 5"]:
    """How each gray frame moves to the next, in the order of ``MOTIONS``, by Farnebäck's flow and the affine motion that fits it best.

    Raises:
        ImportError: if OpenCV is not installed.

    """
    try:
        cv2: Any = import_module("cv2")
    except ImportError as error:
        raise ImportError("--probe direction measures motion with OpenCV: pip install opencv-python-headless") from error
    side = frames.shape[1]
    y, x = (axis - (side - 1) / 2 for axis in np.mgrid[:side, :side].astype(float))
    spread = (x**2).mean()
    rows = []
    for before, after in itertools.pairwise(frames):
        flow = cv2.calcOpticalFlowFarneback(before, after, None, 0.5, 3, 11, 3, 5, 1.1, 0).astype(float)
        u, v = flow[..., 0], flow[..., 1]
        growth, turn = ((x * u + y * v).mean() / (2 * spread), (x * v - y * u).mean() / (2 * spread))
        rows.append([u.mean() / side, v.mean() / side, growth, turn, np.hypot(u, v).mean() / side])
    return np.array(rows).reshape(-1, len(MOTIONS))


def ask(model: VideoMAEForVideoClassification, windows: Windows) -> dict[str, tuple[Bool[np.ndarray, " m"], list[str]]]:
    """Ask a frozen encoder, of which only ``videomae`` is used, all questions.

    A question about a direction is asked about the half of the clips that move most that way or the other (the limit is the training
    clips' median), and about their twins. Then whether a clip moves more than the median, which quarter of the speeds it belongs to, and,
    where videos have classes, which class it is.

    Returns:
        By question: which answers about test clips (for classes: test videos) were right, and the film of each. A question about a
        direction that no clip to train or to test on moves in is left out.

    """
    films = np.array(windows.films)[windows.videos]
    tokens = encode(model, windows.clips)
    answers = {}
    for name, (motion, twin) in QUESTIONS.items():
        value = windows.motion[:, MOTIONS.index(motion)]
        chosen = np.abs(value) > np.median(np.abs(value[~windows.test]))
        if not ((chosen & windows.test).any() and (chosen & ~windows.test).any()):
            continue
        for question, first in ((name, None), (CONTROL, still)) if name == "left/right" else ((name, None),):
            clips = windows.clips[torch.from_numpy(chosen)]
            own = tokens[chosen] if first is None else encode(model, first(clips))
            other = encode(model, twin(clips if first is None else first(clips)))
            truth, test = np.concatenate([value[chosen] > 0, value[chosen] < 0]), np.tile(windows.test[chosen], 2)
            answers[question] = _right(np.concatenate([own, other]), truth, test), np.tile(films[chosen], 2)[test].tolist()
    speed = windows.motion[:, MOTIONS.index("speed")]
    for name, bins in SPEEDS.items():
        limits = np.quantile(speed[~windows.test], np.arange(1, bins) / bins)
        answers[name] = _right(tokens, np.searchsorted(limits, speed), windows.test), films[windows.test].tolist()
    labels = np.array(windows.labels)
    if labels.min() >= 0:
        probabilities = linear_probe(tokens[~windows.test], labels[windows.videos][~windows.test], tokens[windows.test])
        tested = windows.videos[windows.test]
        numbers = np.unique(tested)
        means = np.stack([probabilities[tested == number].mean(0) for number in numbers])
        answers[ACTION] = means.argmax(1) == labels[numbers], [windows.films[number] for number in numbers]
    return answers


@torch.no_grad()
def encode(model: VideoMAEForVideoClassification, clips: UInt8[Tensor, "n 3 t h w"]) -> Float64[np.ndarray, "n d"]:
    """The mean token of each clip."""
    encoder: Any = model.videomae.eval()
    device = next(encoder.parameters()).device
    parts = [encoder(normalize(part.to(device))).last_hidden_state.mean(1) for part in torch.split(clips, BATCH)]
    found: Float64[np.ndarray, "n d"] = torch.cat(parts).double().cpu().numpy()
    return found


def linear_probe(
    tokens: Float64[np.ndarray, "n d"], labels: Int64[np.ndarray, " n"], new: Float64[np.ndarray, "m d"]
) -> Float64[np.ndarray, "m classes"]:
    """Class probabilities by logistic regression on standardized features, with the penalty that is scikit-learn's default (C = 1)."""
    mean, deviation = tokens.mean(0), tokens.std(0) + 1e-9
    x, y = torch.from_numpy((tokens - mean) / deviation), torch.from_numpy(labels).long()
    weight = torch.zeros(x.shape[1], int(y.max()) + 1, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(weight.shape[1], dtype=torch.float64, requires_grad=True)
    optimizer: Any = torch.optim.LBFGS([weight, bias], max_iter=300, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value: Any = F.cross_entropy(x @ weight + bias, y) + weight.square().sum() / (2 * len(x))
        value.backward()
        return value.detach()

    optimizer.step(loss)
    logits = torch.from_numpy((new - mean) / deviation) @ weight.detach() + bias.detach()
    found: Float64[np.ndarray, "m classes"] = logits.softmax(1).numpy()
    return found


def _right(tokens: Float64[np.ndarray, "n d"], truth: np.ndarray, test: Bool[np.ndarray, " n"]) -> Bool[np.ndarray, " m"]:
    """Which test clips a linear probe, trained on the others, has right."""
    labels = truth.astype(np.int64)
    return linear_probe(tokens[~test], labels[~test], tokens[test]).argmax(1) == labels[test]
