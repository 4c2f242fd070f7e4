"""Conversion to and from VideoMAE's official names, against an implementation of that architecture of the test's own."""

import argparse
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import VideoMAEConfig, VideoMAEForPreTraining, VideoMAEForVideoClassification

from pseudomotion.train.cli import convert as main
from pseudomotion.train.videomae.pretrained import from_official, load, read_official, to_official

CONFIG = {
    "image_size": 16,
    "patch_size": 8,
    "num_frames": 4,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 96,
    "decoder_hidden_size": 12,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 48,
    "layer_norm_eps": 1e-6,
}
SIZES = {"frame_size": 16, "num_frames": 4, "num_heads": 3, "decoder_num_heads": 2}


class Block(nn.Module):
    """A pre-norm transformer block with one layer for queries, keys and values, and no bias of the keys."""

    def __init__(self, width, heads):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, 1e-6), nn.LayerNorm(width, 1e-6)
        self.attn, self.mlp = nn.Module(), nn.Module()
        self.attn.qkv, self.attn.proj = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width)
        self.attn.q_bias, self.attn.v_bias = nn.Parameter(torch.zeros(width)), nn.Parameter(torch.zeros(width))
        self.mlp.fc1, self.mlp.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.heads = heads

    def forward(self, x):
        b, n, d = x.shape
        q, k, v = self.attn.qkv(self.norm1(x)).chunk(3, -1)
        q, k, v = (part.view(b, n, self.heads, -1).transpose(1, 2) for part in (q + self.attn.q_bias, k, v + self.attn.v_bias))
        weights = (q @ k.mT / (d // self.heads) ** 0.5).softmax(-1)
        x = x + self.attn.proj((weights @ v).transpose(1, 2).reshape(b, n, d))
        return x + self.mlp.fc2(F.gelu(self.mlp.fc1(self.norm2(x))))


def positions(n, d):
    """Sines in even channels and cosines in odd ones, of the token's number over powers of 10,000."""
    angle = torch.arange(n)[:, None].double() / 10000 ** (torch.arange(d) // 2 * 2 / d).double()
    return torch.where(torch.arange(d) % 2 == 0, angle.sin(), angle.cos()).float()


def embed(patch_embed, clips):
    """Clips (b, c, t, h, w) as tokens (b, n, d), with their positions."""
    tokens = patch_embed.proj(clips).flatten(2).transpose(1, 2)
    return tokens + positions(*tokens.shape[1:])


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv3d(3, 24, (2, 8, 8), (2, 8, 8))
        self.blocks = nn.Sequential(Block(24, 3), Block(24, 3))
        self.norm = nn.LayerNorm(24, 1e-6)


class Pretrained(nn.Module):
    """VideoMAE as its paper describes it: an encoder of visible tokens, a decoder of all of them."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = Encoder(), nn.Module()
        self.decoder.blocks, self.decoder.norm = nn.Sequential(Block(12, 2)), nn.LayerNorm(12, 1e-6)
        self.decoder.head = nn.Linear(12, 2 * 8 * 8 * 3)
        self.encoder_to_decoder = nn.Linear(24, 12, bias=False)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, 12))

    def forward(self, clips, mask):
        tokens = embed(self.encoder.patch_embed, clips)
        b, n, d = tokens.shape
        visible = self.encoder.norm(self.encoder.blocks(tokens[~mask].view(b, -1, d)))
        places = positions(n, 12).expand(b, -1, -1)
        hidden = self.mask_token + places[mask].view(b, -1, 12)
        seen = self.encoder_to_decoder(visible) + places[~mask].view(b, -1, 12)
        decoded = self.decoder.blocks(torch.cat([seen, hidden], 1))
        return self.decoder.head(self.decoder.norm(decoded[:, seen.shape[1] :]))


class FineTuned(nn.Module):
    """The encoder, the mean of its tokens, a norm and a head."""

    def __init__(self):
        super().__init__()
        encoder = Encoder()
        self.patch_embed, self.blocks = encoder.patch_embed, encoder.blocks
        self.fc_norm, self.head = nn.LayerNorm(24, 1e-6), nn.Linear(24, 5)

    def forward(self, clips):
        return self.head(self.fc_norm(self.blocks(embed(self.patch_embed, clips)).mean(1)))


def shaken(model):
    """All weights drawn anew, norms and biases included, so that none may be lost."""
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn_like(weight) * 0.3 + (weight.ndim == 1) * 0.1)
    return model.eval()


@pytest.fixture
def clips():
    torch.manual_seed(0)
    return torch.randn(2, 4, 3, 16, 16)  # (b, t, c, h, w)


@pytest.fixture
def mask():
    return torch.tensor([[1, 0, 1, 0, 1, 0, 1, 1], [0, 1, 1, 1, 0, 1, 1, 0]]).bool()


@torch.no_grad()
def test_a_pretrained_model_computes_the_same(clips, mask):
    own = shaken(VideoMAEForPreTraining(VideoMAEConfig(**CONFIG, use_mean_pooling=False)))
    official = Pretrained().eval()
    official.load_state_dict(to_official(own))
    expected = official(clips.transpose(1, 2), mask)
    torch.testing.assert_close(own(clips, mask).logits, expected, rtol=1e-5, atol=1e-5)
    shaken(official)
    back = from_official(official.state_dict(), **SIZES).eval()
    torch.testing.assert_close(back(clips, mask).logits, official(clips.transpose(1, 2), mask), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_fine_tuned_model_computes_the_same(clips):
    own = shaken(VideoMAEForVideoClassification(VideoMAEConfig(**CONFIG, num_labels=5)))
    official = FineTuned().eval()
    official.load_state_dict(to_official(own))
    torch.testing.assert_close(own(clips).logits, official(clips.transpose(1, 2)), rtol=1e-5, atol=1e-5)
    shaken(official)
    wrapped = {f"module.{name}": value for name, value in official.state_dict().items()}
    torch.testing.assert_close(from_official(wrapped, **SIZES).eval()(clips).logits, official(clips.transpose(1, 2)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("kind", "more"), [(VideoMAEForPreTraining, {"use_mean_pooling": False}), (VideoMAEForVideoClassification, {})])
def test_a_round_trip_of_files_changes_no_bit(kind, more, tmp_path, capsys):
    own = shaken(kind(VideoMAEConfig(**CONFIG, **more)))
    own.save_pretrained(tmp_path / "run" / "model")
    sizes = [word for name, value in SIZES.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    pth, back = str(tmp_path / "model.pth"), str(tmp_path / "back")
    assert main([str(tmp_path / "run"), pth]) == main([pth, back, *sizes]) == 0
    assert kind.__name__ in capsys.readouterr().out
    again = load(back)
    assert type(again) is kind
    assert again.state_dict().keys() == own.state_dict().keys()
    assert all(torch.equal(value, own.state_dict()[name]) for name, value in again.state_dict().items())
    assert main([str(tmp_path / "run"), pth]) == 0  # a file of ours is replaced
    assert main([pth, back, *sizes]) == 2
    assert main([pth, back, "--force", *sizes]) == 0


def test_videomae_files_hold_options_and_more(tmp_path):
    """As its training code saves them: weights under "model", beside options and an optimizer's state."""
    weights = to_official(shaken(VideoMAEForVideoClassification(VideoMAEConfig(**CONFIG))))
    path = tmp_path / "checkpoint.pth"
    torch.save({"model": weights, "epoch": 3, "args": argparse.Namespace(lr=0.1, data="x"), "optimizer": {"state": {}}}, path)
    assert read_official(path).keys() == weights.keys()


def test_a_pickle_that_runs_code_is_not_run(tmp_path, capsys):
    class Touch:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    for write in (
        lambda path: torch.save({"model": Touch()}, path),
        lambda path: path.write_bytes(pickle.dumps({"model": Touch()}, protocol=2)),
    ):
        write(tmp_path / "bad.pth")
        assert main([str(tmp_path / "bad.pth"), str(tmp_path / "out")]) == 2
        assert "cannot read" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.pth"]


def test_what_does_not_fit_is_named(tmp_path, capsys):
    weights = to_official(VideoMAEForPreTraining(VideoMAEConfig(**CONFIG, use_mean_pooling=False)))
    with pytest.raises(ValueError, match=r"num_heads must be given for a width of 24"):
        from_official(weights, frame_size=16, num_frames=4)
    with pytest.raises(ValueError, match=r"encoder.norm.bias"):
        from_official({name: value for name, value in weights.items() if name != "encoder.norm.bias"}, **SIZES)
    with pytest.raises(ValueError, match=r"with pos_embed"):
        from_official(weights | {"pos_embed": torch.zeros(1)}, **SIZES)
    with pytest.raises(ValueError, match=r"patch_embed.proj.weight.*missing"):
        from_official({"x": torch.zeros(1)}, **SIZES)
    with pytest.raises(ValueError, match=r"do not fit"):
        from_official(weights | {"encoder.norm.bias": torch.zeros(3)}, **SIZES)
    (tmp_path / "cut.pth").write_bytes(b"")
    for model, message in ((tmp_path / "none", "there is no model"), (tmp_path / "cut.pth", "cannot read")):
        assert main([str(model), str(tmp_path / "out.pth")]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
