"""What fine-tuning is made of: mixing, labels and scores, against arithmetic of their own."""

import numpy as np
import pytest
import torch

from pseudomotion.mix import Mixup, VideoMix, mix_targets
from pseudomotion.train.evaluate import class_scores, top_scores
from pseudomotion.train.video.augment import MixupOrCutMix, smooth_labels


def test_mixup_or_cutmix_is_one_of_the_two():
    ids = torch.arange(400)
    clips = torch.arange(400).float().view(-1, 1, 1, 1, 1).expand(-1, 3, 2, 8, 8)
    mixed, info = MixupOrCutMix(switch=0.3)(clips, ids=ids, seed=5)
    by_mixup, mixup_info = Mixup(0.8)(clips, ids=ids, seed=5)
    by_cutmix, cutmix_info = VideoMix(1.0)(clips, ids=ids, seed=5)
    is_mixup, is_cutmix = ((mixed == other).flatten(1).all(1) for other in (by_mixup, by_cutmix))
    assert (is_mixup | is_cutmix).all()
    assert 80 < (~is_mixup).sum() < 160
    weight = torch.where(is_mixup, mixup_info.partner_weight, cutmix_info.partner_weight)
    assert torch.equal(info.partner_weight, weight)
    labels = ids % 7
    assert torch.equal(mix_targets(labels, info, 7)[3], torch.lerp(*torch.eye(7)[labels[[3, int(info.partner[3])]]], weight[3]))


def test_smooth_labels():
    assert smooth_labels(torch.tensor([1]), 4, 0.2).tolist() == [pytest.approx([0.05, 0.85, 0.05, 0.05])]


def test_scores_are_those_of_a_count():
    generator = np.random.default_rng(0)
    probabilities, labels = generator.dirichlet(np.ones(8), 60), generator.integers(0, 7, 60)  # class 7 has no videos
    order = np.argsort(-probabilities, 1)
    expected = {k: 100 * np.mean([label in row[:k] for row, label in zip(order, labels, strict=True)]) for k in (1, 5)}
    scores = top_scores(torch.from_numpy(probabilities).float(), torch.from_numpy(labels))
    assert scores == {"top1": pytest.approx(expected[1]), "top5": pytest.approx(expected[5])}
    each = class_scores(torch.from_numpy(probabilities).float(), torch.from_numpy(labels))
    assert each == {c: pytest.approx(100 * np.mean(order[labels == c, 0] == c)) for c in range(7)}
    assert top_scores(torch.eye(3), torch.tensor([0, 1, 0]))["top5"] == 100
