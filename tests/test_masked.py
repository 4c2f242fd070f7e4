"""Masked modeling: masks, targets and loss against numpy and transformers, and that a model learns by it."""

import re
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from processes import CONTEXT
from torch.overrides import TorchFunctionMode
from transformers import VideoMAEForPreTraining, VideoMAEForVideoClassification

from pseudomotion import PMG
from pseudomotion.draws import Draws
from pseudomotion.images.synthetic import DeadLeaves
from pseudomotion.train.engine.optimize import make_optimizer, make_schedule, parameter_groups
from pseudomotion.train.pretrain import MaskedModeling, PretrainOptions
from pseudomotion.train.videomae.classifier import ClassifierLoss, classification_model
from pseudomotion.train.videomae.masking import tube_mask, tube_tokens
from pseudomotion.train.videomae.model import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    SIZES,
    from_patches,
    model_config,
    pretraining_model,
    reconstruct,
    to_patches,
)
from pseudomotion.train.videomae.objective import MaskedLoss

CLIPS = PMG(num_frames=4, size=32, mean=IMAGENET_MEAN, std=IMAGENET_STD, data_format="BTCHW")


def small(**more):
    return model_config("tiny", frame_size=32, num_frames=4, **more)


def draws(n, first=0):
    return Draws(0, torch.arange(n) + first)


@pytest.mark.parametrize(("ratio", "hidden"), [(0.75, 147), (0.9, 176)])
def test_tubes_hide_the_published_number_of_patches(ratio, hidden):
    mask = tube_mask(draws(5), 8, 196, ratio)
    assert mask.shape == (5, 1568)
    assert torch.equal(mask.reshape(5, 8, 196).sum(2), torch.full((5, 8), hidden))


def test_tubes_are_the_same_in_every_slice_and_differ_between_clips():
    mask = tube_mask(draws(64), 3, 16, 0.75).reshape(64, 3, 16)
    assert (mask == mask[:, :1]).all()
    assert len({tuple(row.tolist()) for row in mask[:, 0]}) > 50


def test_tokens_are_those_of_the_mask():
    mask = tube_mask(draws(5), 3, 16, 0.6)
    for tokens, shown in zip(tube_tokens(draws(5), 3, 16, 0.6), (~mask, mask), strict=True):
        assert tokens.tolist() == [row.nonzero()[:, 0].tolist() for row in shown]


def test_every_patch_is_hidden_equally_often():
    share = tube_mask(draws(4096), 1, 16, 0.75).float().mean(0)
    torch.testing.assert_close(share, torch.full((16,), 0.75), atol=4 * (0.75 * 0.25 / 4096) ** 0.5, rtol=0)


def test_a_mask_depends_on_its_id_alone():
    assert torch.equal(tube_mask(draws(8), 2, 16, 0.5)[5:], tube_mask(draws(3, 5), 2, 16, 0.5))


@pytest.mark.parametrize("ratio", [0.0, 0.01, 1.0])
def test_a_mask_of_nothing_or_everything_is_refused(ratio):
    with pytest.raises(ValueError, match="mask_ratio"):
        tube_mask(draws(1), 2, 16, ratio)


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_the_loss_and_its_gradients_are_transformers_own(precision):
    """To the last bit, though tokens are gathered by number instead of by a boolean mask."""
    clips = CLIPS(torch.rand(3, 3, 40, 40), ids=torch.arange(3))
    mask = tube_mask(draws(3), 2, 16, 0.75)
    results = []
    for ours in (True, False):
        torch.manual_seed(0)
        model = pretraining_model(small())
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss = (
                MaskedLoss(model)(clips, *tube_tokens(draws(3), 2, 16, 0.75))
                if ours
                else model(pixel_values=clips, bool_masked_pos=mask).loss
            )
        loss.backward()
        results.append([loss, *(weight.grad for weight in model.parameters())])
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*results, strict=True))


def graphs(path):
    """Write down how many graphs the loss is for ``torch.compile``, and how many breaks it has."""
    model = MaskedLoss(pretraining_model(small()))
    inputs = torch.rand(2, 4, 3, 32, 32), *tube_tokens(draws(2), 2, 16, 0.75)
    explained = torch._dynamo.explain(model)(*inputs)
    path.write_text(f"{explained.graph_count} {explained.graph_break_count}")


def test_the_loss_is_one_graph(tmp_path):
    child = CONTEXT.Process(target=graphs, args=(tmp_path / "graphs",))  # where no shapes are checked, which Dynamo does not trace
    child.start()
    child.join(120)
    assert (tmp_path / "graphs").read_text() == "1 0"


class Transfers(TorchFunctionMode):
    """Counts what is copied from one device to another, by the number of elements."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        tensors = [value for value in args if isinstance(value, torch.Tensor)]
        if isinstance(result, torch.Tensor) and any(value.device != result.device for value in tensors if value.ndim):
            self.seen.append((function, tuple(result.shape)))
        return result


@pytest.mark.parametrize("kind", ["masked", "classifier"])
def test_a_step_copies_nothing_from_the_host(kind):
    """On the meta device: transformers' own position tables are plain tensors on the CPU, copied in every step."""
    if kind == "masked":
        objective = MaskedLoss(pretraining_model(small()))
        inputs = [part.to("meta") for part in tube_tokens(draws(2), 2, 16, 0.75)]
    else:
        objective, inputs = ClassifierLoss(classification_model(small(), 3)), [torch.zeros(2, dtype=torch.int64, device="meta")]
    clips = torch.zeros(2, 4, 3, 32, 32, device="meta")
    objective.to("meta")
    with Transfers() as transfers:
        objective(clips, *inputs).backward()
    assert not transfers.seen
    plain = VideoMAEForVideoClassification(small()).to("meta")
    with Transfers() as transfers:
        plain(clips)
    assert transfers.seen, "the test does not see transformers' copies"


def numpy_loss(pixels, logits, mask, config):
    """The masked loss in float64, token by token."""
    video = pixels.double().numpy() * np.array(IMAGENET_STD)[:, None, None] + np.array(IMAGENET_MEAN)[:, None, None]
    p, rows = config.patch_size, config.image_size // config.patch_size
    errors = []
    for b in range(len(video)):
        for place, token in enumerate(np.flatnonzero(mask[b].numpy())):
            t, y, x = token // rows**2, token // rows % rows, token % rows
            cube = video[b, 2 * t : 2 * t + 2, :, y * p : y * p + p, x * p : x * p + p].transpose(0, 2, 3, 1).reshape(-1, 3)
            target = (cube - cube.mean(0)) / (cube.std(0, ddof=1) + 1e-6)
            errors.append((logits[b, place].double().numpy() - target.reshape(-1)) ** 2)
    return np.mean(errors)


def test_the_loss_is_that_of_float64_numpy():
    torch.manual_seed(0)
    config = small()
    model = pretraining_model(config).eval()
    clips = CLIPS(torch.rand(3, 3, 40, 40), ids=torch.arange(3))
    mask = tube_mask(draws(3), 2, 16, 0.75)
    output = model(pixel_values=clips, bool_masked_pos=mask)
    assert output.loss.item() == pytest.approx(numpy_loss(clips, output.logits.detach(), mask, config), rel=1e-5)


@given(st.integers(1, 2), st.integers(1, 3), st.sampled_from([4, 8]))
def test_patches_and_back(batch, slices, patch):
    config = model_config("tiny", frame_size=16, num_frames=2 * slices, patch_size=patch)
    clips = torch.randn(batch, 2 * slices, 3, 16, 16)
    assert torch.equal(from_patches(to_patches(clips, config), config), clips)


def test_patches_come_in_the_order_of_the_model():
    """A token's values: its two frames, its rows, its columns, its channels, as the patch embedding's weights are ordered."""
    config = small()
    clips = torch.zeros(1, 4, 3, 32, 32)
    clips[0, 3, 1, 9, 26] = 1  # second slice, second row, fourth column
    token, value = to_patches(clips, config)[0].nonzero()[0].tolist()
    assert token == 16 + 4 * 1 + 3
    assert value == ((1 * 8 + 1) * 8 + 2) * 3 + 1


def test_reconstruction_keeps_what_is_seen_and_fills_in_what_is_predicted():
    config = small()
    model = pretraining_model(config).eval()
    images = torch.rand(2, 3, 32, 32)
    pixels = CLIPS(images, ids=torch.arange(2))
    mask = tube_mask(draws(2), 2, 16, 0.75)
    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    true = pixels * std + mean

    def perfect(pixel_values, bool_masked_pos):
        cubes = to_patches(true, config).unflatten(2, (-1, 3))
        deviation, average = torch.std_mean(cubes, 2, keepdim=True)
        return type("Output", (), {"logits": ((cubes - average) / (deviation + 1e-6)).flatten(2)[bool_masked_pos].reshape(2, -1, 384)})

    knowing = pretraining_model(config)
    knowing.forward = perfect
    seen, filled = reconstruct(knowing, pixels, mask)
    torch.testing.assert_close(filled, true.clamp(0, 1), atol=1e-4, rtol=0)
    hidden = from_patches(mask[..., None].expand(-1, -1, 384).float(), config).bool()
    torch.testing.assert_close(seen[~hidden], true[~hidden].clamp(0, 1))
    assert (seen[hidden] == 0.5).all()
    _, guessed = reconstruct(model, pixels, mask)
    assert (guessed[hidden] - true[hidden]).abs().mean() > 0.05


def test_pretraining_keeps_the_encoders_last_norm():
    model = pretraining_model(small())
    assert isinstance(model, VideoMAEForPreTraining)
    assert model.videomae.layernorm is not None
    assert not model.config.use_mean_pooling


# Deviations of new weights in a model of width d whose decoder has width e: Xavier's sqrt(2 / (in + out)) with query, key and value as one
# layer (d, 3d), torch's 1 / sqrt(3 in) for the patch embedding and encoder_to_decoder, which VideoMAE leaves alone.
DEVIATIONS = {
    r"patch_embeddings\.projection\.weight": lambda d, e: (3 * 3 * 2 * 8 * 8) ** -0.5,
    r"videomae.*\.(query|key|value)\.weight": lambda d, e: (2 / (4 * d)) ** 0.5,
    r"videomae.*attention\.output\.dense\.weight": lambda d, e: (2 / (2 * d)) ** 0.5,
    r"videomae.*layer\.\d+\.(intermediate|output)\.dense\.weight": lambda d, e: (2 / (5 * d)) ** 0.5,
    r"encoder_to_decoder\.weight": lambda d, e: (3 * d) ** -0.5,
    r"decoder.*\.(query|key|value)\.weight": lambda d, e: (2 / (4 * e)) ** 0.5,
    r"decoder.*attention\.output\.dense\.weight": lambda d, e: (2 / (2 * e)) ** 0.5,
    r"decoder.*layers\.\d+\.(intermediate|output)\.dense\.weight": lambda d, e: (2 / (5 * e)) ** 0.5,
    r"decoder\.head\.weight": lambda d, e: (2 / (e + 3 * 2 * 8 * 8)) ** 0.5,
    r"mask_token": lambda d, e: 0.02 * 0.5397,  # a normal distribution cut at one deviation
    r"norm\w*\.weight": lambda d, e: 0.0,
    r"bias": lambda d, e: 0.0,
}


def test_weights_begin_as_videomae_begins_them():
    """The deviation of every kind of weight."""
    torch.manual_seed(0)
    model = pretraining_model(small())
    d, e, seen = model.config.hidden_size, model.config.decoder_hidden_size, set()
    for name, weight in model.named_parameters():
        (kind,) = (kind for kind in DEVIATIONS if re.search(f"{kind}$", name))
        if name.endswith("projection.bias"):
            continue  # torch draws it too
        seen.add(kind)
        expected = DEVIATIONS[kind](d, e)
        assert weight.std(correction=0).item() == pytest.approx(expected, rel=max(0.05, 4 * weight.numel() ** -0.5)), name
    assert seen == set(DEVIATIONS)


# Parameters of the encoders of VideoMAE's ViT-S, B, L and H: 22, 86, 304 and 632 million (facts of its model zoo: 22, 87, 305, 633).
@pytest.mark.parametrize(("size", "millions"), [("small", 22), ("base", 86.2), ("large", 303.9), ("huge", 631.3)])
def test_sizes_are_those_of_vision_transformers(size, millions):
    with torch.device("meta"):
        encoder = VideoMAEForPreTraining(model_config(size, frame_size=32, num_frames=2)).videomae
    assert sum(weight.numel() for weight in encoder.parameters()) / 1e6 == pytest.approx(millions, rel=0.01)


def test_sizes_are_checked():
    with pytest.raises(ValueError, match="frame_size must be a multiple of patch_size = 16"):
        model_config("base", frame_size=100)
    with pytest.raises(ValueError, match="num_frames must be a multiple of 2"):
        model_config("base", num_frames=7)
    with pytest.raises(ValueError, match=f"model must be one of {', '.join(SIZES)}"):
        model_config("giant")


def test_the_schedule_rises_and_falls():
    def rates_from(first):
        """Of the steps from ``first`` on, of a weight with a fifth of the learning rate."""
        group = {"params": [torch.nn.Parameter(torch.ones(1))], "lr_scale": 0.2, "weight_decay": 0.0}
        optimizer = make_optimizer([group], 1.0, (0.9, 0.95))
        schedule = make_schedule(optimizer, steps=100, warmup=10, end=0.1, first=first)
        for _ in range(first, 100):
            yield optimizer.param_groups[0]["lr"] / 0.2
            optimizer.step()
            schedule.step()

    rates = list(rates_from(0))
    assert list(rates_from(37)) == rates[37:]
    assert rates[0] == 0
    assert rates[5] == pytest.approx(0.5)
    assert rates[10] == pytest.approx(1)
    assert rates[55] == pytest.approx(0.55)
    assert rates[99] == pytest.approx(0.1, abs=1e-3)
    assert all(a > b for a, b in pairwise(rates[10:]))


def test_biases_norms_and_the_mask_token_do_not_decay():
    model = pretraining_model(small())
    groups = {group["weight_decay"]: {id(weight) for weight in group["params"]} for group in parameter_groups(model, 0.05)}
    assert set(groups) == {0.0, 0.05}
    assert len(groups[0.0]) + len(groups[0.05]) == len(list(model.parameters()))
    assert id(model.mask_token) in groups[0.0]
    assert id(model.videomae.encoder.layer[0].layernorm_before.weight) in groups[0.0]
    assert id(model.videomae.encoder.layer[0].attention.attention.key.weight) in groups[0.05]


def test_a_model_overfits_one_batch_of_clips():
    torch.manual_seed(0)
    task = MaskedModeling(
        pretraining_model(small()),
        DeadLeaves(size=32),
        lambda images, ids, textures: CLIPS(images, ids=ids),
        None,
        PretrainOptions(out="o", source="dead_leaves"),
    )
    ids = torch.arange(2)
    inputs = task.inputs(task.source.get(ids), ids, torch.device("cpu"))
    optimizer = torch.optim.AdamW(task.groups(), lr=2e-3, betas=(0.9, 0.95))
    losses = []
    for step in range(150):
        optimizer.param_groups[0]["lr"] = optimizer.param_groups[1]["lr"] = 2e-3 * min(1, step / 20)
        loss = task.objective(*inputs)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2
    assert losses[-1] < 0.5  # 1 is what predicting the mean gives
