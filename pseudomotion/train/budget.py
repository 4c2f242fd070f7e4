"""How many steps a time allows, for ``pmg-validate``."""

import copy
import re
import time
from collections.abc import Callable, Iterator, Sequence

from pseudomotion.train.arms import Arm
from pseudomotion.train.labelled import Data
from pseudomotion.train.presets import Setting
from pseudomotion.train.probe import CLASSES
from pseudomotion.train.trials import Classifier, FineTuned, accuracy, classify, made_together, new_model, pretrain

SHARES = {"pretrain": 0.5, "fine_tune": 0.25, "low_shot": 0.12, "probe": 0.13}  # of the time, over all trials
WARM, TIMED = 3, 8  # steps before and while time is taken, at least
LEAST_STEPS = 10


def seconds(budget: str) -> float:
    """A time such as "8m" in seconds.

    Raises:
        ValueError: where it is none.

    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", budget)
    if not match or not float(match[1]):
        raise ValueError(f"--budget must be a number and s, m or h, such as 8m, got {budget!r}")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]


def affordable(budget: float, arms: Sequence[Arm], seeds: int, pool: str, setting: Setting, data: Data) -> dict[str, int]:
    """Steps of every stage that a time allows, for all arms alike, measured with the arm that takes the longest per step.

    Args:
        budget: in seconds.
        arms: that are to be compared.
        seeds: trials of every arm.
        pool: as for ``Classifier``.
        setting: the sizes.
        data: what is learnt from.

    Raises:
        ValueError: where there is no time for as much as a few steps.

    """
    begin, device, trials = time.perf_counter(), data.images.device, len(arms) * seeds
    model = new_model(setting, 0, device)
    tuned = FineTuned(model.videomae, len(CLASSES)).to(device)
    frozen = Classifier(copy.deepcopy(model.videomae), len(CLASSES), pool).to(device)
    cost, runs = {"pretrain": 0.0}, dict.fromkeys(SHARES, trials)
    if pretrained := [arm for arm in arms if arm.transforms]:
        pmg = max(pretrained, key=lambda arm: arm.mixup).pmg(setting.num_frames, setting.frame_size, 0)
        cost["pretrain"] = _per_step(lambda steps: pretrain(model, data.images, pmg, setting, steps, 0), made_together(setting))
    runs["pretrain"] = len(pretrained) * seeds
    cost["fine_tune"] = cost["low_shot"] = _per_step(lambda steps: classify(tuned, data.train, setting, steps, 0.0, 0))
    cost["probe"] = _per_step(lambda steps: classify(frozen, data.train, setting, steps, 0.0, 0))
    moment = time.perf_counter()
    accuracy(tuned, data.test)
    testing = 3 * trials * (time.perf_counter() - moment)
    left = max(0.0, budget - testing - (time.perf_counter() - begin))
    whole = sum(share for stage, share in SHARES.items() if runs[stage])
    steps = {stage: int(left * share / whole / (runs[stage] * cost[stage])) if runs[stage] else 0 for stage, share in SHARES.items()}
    if short := [stage for stage, count in steps.items() if runs[stage] and count < LEAST_STEPS]:
        raise ValueError(f"--budget leaves {left:.0f} s to train {trials} models, fewer than {LEAST_STEPS} steps of {', '.join(short)}")
    return steps


def _per_step(train: Callable[[int], Iterator[float]], together: int = 1) -> float:
    """Seconds per step of a training that is given its number of steps, and makes its clips for ``together`` steps at once."""
    warm, timed = (-(-least // together) * together for least in (WARM, TIMED))
    moments = [time.perf_counter() for _ in train(warm + timed)]
    return (moments[-2] - moments[warm - 2]) / timed  # a step's loss comes when the next one has run
