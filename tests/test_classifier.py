"""The classifier against transformers' plain class, and the learning rates of its layers by hand."""

import json

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import VideoMAEConfig, VideoMAEForPreTraining, VideoMAEForVideoClassification
from transformers.models.videomae.modeling_videomae import VideoMAELayer

from pseudomotion.train.videomae.classifier import ClassifierLoss, StochasticDepth, classification_model, freeze_encoder, layer_scale


def config(**more):
    return VideoMAEConfig(
        image_size=16,
        patch_size=8,
        num_frames=4,
        hidden_size=24,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=48,
        decoder_num_attention_heads=2,
        decoder_hidden_size=12,
        decoder_num_hidden_layers=1,
        decoder_intermediate_size=24,
        layer_norm_eps=1e-6,
        **more,
    )


def clips(n=3):
    return torch.randn(n, 4, 3, 16, 16)


@pytest.fixture
def pretrained(tmp_path):
    """A pre-trained model, no weight of which is as a new one would be."""
    model = VideoMAEForPreTraining(config(use_mean_pooling=False))
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
    model.save_pretrained(tmp_path / "run" / "model")
    return model, tmp_path / "run"


@pytest.mark.parametrize("folder", ["", "model"])
def test_the_encoder_is_taken_over_and_the_head_is_new(pretrained, folder):
    source, run = pretrained
    model = classification_model(run / folder, 5, head_scale=0.001)
    taken = {name for name in source.state_dict() if name.startswith("videomae.") and "videomae.layernorm" not in name}
    assert taken | {"fc_norm.weight", "fc_norm.bias", "classifier.weight", "classifier.bias"} == set(model.state_dict())
    assert all(torch.equal(model.state_dict()[name], source.state_dict()[name]) for name in taken)
    assert (model.fc_norm.weight == 1).all()
    assert (model.fc_norm.bias == 0).all()
    assert (model.classifier.bias == 0).all()
    assert 0.7 < model.classifier.weight.std() / (0.02 * 0.001) < 1.3
    assert torch.equal(model.videomae.embeddings.position_embeddings, source.videomae.embeddings.position_embeddings)


def test_pooling_is_the_mean_of_the_encoder_without_its_last_norm(pretrained):
    source, run = pretrained
    model = classification_model(run, 5, head_scale=1).eval()
    pixels = clips()
    hidden = source.videomae.embeddings(pixels, None)
    for layer in source.videomae.encoder.layer:
        hidden = layer(hidden)
    expected = F.linear(F.layer_norm(hidden.mean(1), (24,)), model.classifier.weight)
    assert torch.allclose(model(pixel_values=pixels).logits, expected, atol=1e-6)
    assert expected.std() > 0.01


def test_it_is_saved_as_the_plain_class(pretrained, tmp_path):
    model = classification_model(pretrained[1], 3, drop_path=0.5, head_dropout=0.5, head_scale=1, class_names=["run", "sit", "wave"]).eval()
    model.save_pretrained(tmp_path / "saved")
    plain, info = VideoMAEForVideoClassification.from_pretrained(tmp_path / "saved", output_loading_info=True)
    assert not any(info.values())
    assert plain.config.id2label == {0: "run", 1: "sit", 2: "wave"}
    assert type(plain.classifier) is nn.Linear
    pixels = clips()
    assert torch.equal(plain.eval()(pixel_values=pixels).logits, model(pixel_values=pixels).logits)


def test_a_fine_tuned_model_gives_its_encoder_alone(pretrained, tmp_path):
    """Also where its head has as many classes."""
    first = classification_model(pretrained[1], 5, head_scale=1)
    with torch.no_grad():
        first.fc_norm.weight.mul_(3)
    first.save_pretrained(tmp_path / "first")
    for num_classes in (5, 7):
        model = classification_model(tmp_path / "first", num_classes)
        assert model.classifier.weight.abs().max() < 1e-3
        assert (model.fc_norm.weight == 1).all()
        assert torch.equal(
            model.videomae.encoder.layer[0].attention.attention.query.weight,
            first.videomae.encoder.layer[0].attention.attention.query.weight,
        )


def test_from_scratch():
    settings = config(use_mean_pooling=False)
    model = classification_model(settings, 4)
    assert settings.use_mean_pooling is False  # left as it was
    assert model.config.num_labels == 4
    assert model(pixel_values=clips()).logits.shape == (3, 4)
    bound = 1 / (3 * 2 * 8 * 8) ** 0.5  # how torch draws a convolution
    weights = model.videomae.embeddings.patch_embeddings.projection.weight.abs()
    assert 0.98 * bound < weights.max() <= bound


def test_dropout_happens_in_training_alone(pretrained):
    model = classification_model(pretrained[1], 5, drop_path=0.0, head_dropout=0.9, head_scale=1)
    pixels = clips(1)
    plain = model.eval()(pixel_values=pixels).logits
    assert torch.equal(plain, model(pixel_values=pixels).logits)
    dropped = model.train()(pixel_values=pixels.expand(1000, -1, -1, -1, -1)).logits
    assert dropped.std(0).min() > 0.1
    assert ((dropped.mean(0) - plain).abs() / (dropped.std(0) / 1000**0.5)).max() < 4.5


def test_stochastic_depth_keeps_the_expected_value():
    branch = torch.ones(20000, 2, 3)
    depth = StochasticDepth(0.3)
    out = depth(branch)
    assert set(out.unique().tolist()) == {0.0, torch.tensor(1 / 0.7).item()}
    assert (out == out[:, :1, :1]).all()  # a clip's branch as a whole
    assert abs((out[:, 0, 0] == 0).float().mean() - 0.3) < 0.015
    assert abs(out.mean() - 1) < 0.02
    assert depth.eval()(branch) is branch
    assert torch.equal(StochasticDepth(0.0)(branch), branch)
    assert StochasticDepth(0.5)(branch.bfloat16()).dtype == torch.bfloat16


def test_stochastic_depth_leaves_out_both_branches(pretrained):
    """A block all of whose branches are left out does nothing; the clip after it is as before."""
    model = classification_model(pretrained[1], 5, drop_path=0.5)
    assert [layer.output.dropout.p for layer in model.videomae.encoder.layer] == [0, 0.25, 0.5]
    assert [layer.attention.output.dropout.p for layer in model.videomae.encoder.layer] == [0, 0.25, 0.5]
    block = model.videomae.encoder.layer[2].train()
    hidden = torch.randn(400, 8, 24)
    out = block(hidden)
    plain = VideoMAELayer(model.config)
    plain.load_state_dict(block.state_dict())
    with torch.no_grad():
        attention = plain.attention(plain.layernorm_before(hidden))
        ends = []
        for first in (0, 2):
            middle = hidden + first * attention
            mlp = plain.output.dense(plain.intermediate(plain.layernorm_after(middle)))
            ends += [middle, middle + 2 * mlp]
    kind = torch.stack([(out - end).abs().amax((1, 2)) < 1e-4 for end in ends])
    assert (kind.sum(0) == 1).all()
    assert kind.sum(1).min() > 60  # all four combinations
    assert torch.equal(block.eval()(hidden), plain.eval()(hidden))


def test_learning_rates_of_layers():
    """By hand, for a model of three blocks and a decay of 0.5."""
    model = classification_model(config(), 4)
    scales = {name: layer_scale(name, 3, 0.5) for name in model.state_dict()}
    assert scales["videomae.embeddings.patch_embeddings.projection.weight"] == 0.5**4
    assert scales["videomae.encoder.layer.0.layernorm_before.weight"] == 0.5**3
    assert scales["videomae.encoder.layer.1.attention.attention.query.bias"] == 0.5**2
    assert scales["videomae.encoder.layer.2.output.dense.weight"] == 0.5
    assert {scales[f"{name}.{kind}"] for name in ("fc_norm", "classifier") for kind in ("weight", "bias")} == {1.0}
    assert layer_scale("videomae.encoder.layer.11.output.dense.bias", 12, 0.75) == 0.75
    assert layer_scale("videomae.encoder.layer.10.output.dense.bias", 12, 0.75) == 0.75**2


def test_a_linear_probe_trains_the_head_alone():
    model = classification_model(config(), 4, drop_path=0.5)
    freeze_encoder(model)
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert trained == {"classifier.weight", "classifier.bias"}
    objective = ClassifierLoss(model).train()
    pixels, labels = clips(), torch.tensor([0, 1, 2])
    assert objective(pixels, labels) == objective(pixels, labels), "the frozen encoder is noisy"
    assert not any(module.training for module in model.videomae.modules())
    assert model.classifier.training


def test_the_loss_is_the_cross_entropy_of_labels_and_of_class_probabilities():
    model = classification_model(config(), 4, head_scale=1).eval()
    pixels, labels = clips(), torch.tensor([0, 3, 2])
    expected = -model(pixel_values=pixels).logits.double().log_softmax(1)[range(3), labels].mean()
    for targets in (labels, F.one_hot(labels, 4).float()):
        assert ClassifierLoss(model).eval()(pixels, targets).item() == pytest.approx(expected.item(), rel=1e-5)


def test_wrong_arguments(pretrained, tmp_path):
    _, run = pretrained
    with pytest.raises(FileNotFoundError, match=r"there is no model in .*nowhere"):
        classification_model(tmp_path / "nowhere", 5)
    with pytest.raises(ValueError, match="num_classes must be at least 2, got 1"):
        classification_model(run, 1)
    with pytest.raises(ValueError, match="drop_path must be from 0 to less than 1, got 1"):
        classification_model(run, 5, drop_path=1)
    with pytest.raises(ValueError, match="class_names must be 5, one for each class, got 2"):
        classification_model(run, 5, class_names=["a", "b"])
    with pytest.raises(ValueError, match="hidden_dropout_prob must be 0"):
        classification_model(config(hidden_dropout_prob=0.1), 5)
    file = run / "model" / "model.safetensors"
    weights = load_file(file)
    del weights["videomae.encoder.layer.1.output.dense.weight"]
    save_file(weights, file, {"format": "pt"})
    with pytest.raises(ValueError, match=r"does not hold all weights of the encoder: no videomae.encoder.layer.1.output.dense.weight"):
        classification_model(run, 5)
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"run/model holds no model: "):
        classification_model(run, 5)
    settings = run / "model" / "config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"model_type": "vit"}))
    with pytest.raises(ValueError, match="must hold a VideoMAE model, it is of type 'vit'"):
        classification_model(run, 5)
