"""Models that training starts from: runs, folders, the Hub's cache, and files of the official code; never a pickle that runs."""

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from trainer import pretrain as main
from transformers import VideoMAEConfig, VideoMAEForPreTraining, VideoMAEForVideoClassification

from pseudomotion.train.pretrain import PretrainOptions, make_task
from pseudomotion.train.videomae.pretrained import load_pretrained, model_folder, pretrained_autoencoder, to_official

CPU = torch.device("cpu")
SIZES = {
    "image_size": 16,
    "patch_size": 8,
    "num_frames": 4,
    "hidden_size": 384,  # a width of VideoMAE's, so that the heads are known
    "num_hidden_layers": 1,
    "num_attention_heads": 6,
    "intermediate_size": 48,
    "decoder_num_attention_heads": 3,
    "decoder_hidden_size": 192,
    "decoder_num_hidden_layers": 1,
    "decoder_intermediate_size": 24,
    "layer_norm_eps": 1e-6,
}


def scrambled(kind, **more):
    """A model none of whose weights is as a new one would be."""
    model = kind(VideoMAEConfig(**SIZES, **more))
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
    return model


@pytest.fixture
def autoencoder():
    return scrambled(VideoMAEForPreTraining, use_mean_pooling=False)


def check_same(model, other):
    for name, value in other.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name


def test_a_folder_and_a_run(autoencoder, tmp_path):
    autoencoder.save_pretrained(tmp_path / "run" / "model")
    for init in (tmp_path / "run", str(tmp_path / "run" / "model")):
        check_same(pretrained_autoencoder(init), autoencoder)


def test_a_file_of_the_official_code(autoencoder, tmp_path):
    torch.save({"model": to_official(autoencoder), "epoch": 3}, tmp_path / "official.pth")
    model = pretrained_autoencoder(tmp_path / "official.pth", frame_size=16, num_frames=4)
    check_same(model, autoencoder)
    classifier, absent = load_pretrained(VideoMAEForVideoClassification, tmp_path / "official.pth", frame_size=16, num_frames=4)
    check_same(classifier.videomae.encoder, autoencoder.videomae.encoder)
    assert all(name.startswith(("fc_norm", "classifier")) for name in absent if "layernorm" not in name)


class Trap:
    def __reduce__(self):
        return (Path.touch, (Path("trapped"),))


def test_a_pickle_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.pth").write_bytes(pickle.dumps({"model": Trap()}, protocol=2))
    torch.save({"model": Trap()}, tmp_path / "evil2.pth")
    for name in ("evil.pth", "evil2.pth"):
        with pytest.raises(ValueError, match="cannot read evil"):
            pretrained_autoencoder(name)
    assert not (tmp_path / "trapped").exists()


def test_a_model_of_the_hub_that_is_cached(autoencoder, tmp_path, monkeypatch):
    """The layout of the Hub's cache; nothing is asked of the network."""
    repo = tmp_path / "cache" / "models--someone--videomae"
    autoencoder.save_pretrained(repo / "snapshots" / "abc")
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    assert model_folder("someone/videomae") == repo / "snapshots" / "abc"
    check_same(pretrained_autoencoder("someone/videomae"), autoencoder)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match=r"there is no model in someone/else: .*, and the Hugging Face Hub gave none"):
        model_folder("someone/else")


def test_a_fine_tuned_model_gets_a_new_decoder(tmp_path):
    """New as in VideoMAE; and a new last norm, since a fine-tuned model has none."""
    tuned = scrambled(VideoMAEForVideoClassification, num_labels=5)
    tuned.save_pretrained(tmp_path / "tuned")
    model = pretrained_autoencoder(tmp_path / "tuned")
    check_same(model.videomae.encoder, tuned.videomae.encoder)
    assert (model.videomae.layernorm.weight == 1).all()
    assert model.encoder_to_decoder.weight.std().item() == pytest.approx((3 * 384) ** -0.5, rel=0.05)
    assert not model.config.use_mean_pooling


def test_a_model_that_lacks_a_block_is_refused(autoencoder, tmp_path):
    autoencoder.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["videomae.encoder.layer.0.output.dense.weight"]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"does not hold all weights of the encoder: no videomae.encoder.layer.0.output.dense.weight"):
        pretrained_autoencoder(tmp_path)


def test_pre_training_goes_on_from_a_model(autoencoder, tmp_path):
    autoencoder.save_pretrained(tmp_path / "start")
    given = {"out": "o", "source": "noise", "limit": 6, "init": str(tmp_path / "start")}
    check_same(make_task(PretrainOptions(**given), CPU).model, autoencoder)
    for name, value in (("model", "tiny"), ("patch_size", 8)):
        with pytest.raises(ValueError, match=f"{name} must be left out with init"):
            PretrainOptions(**given, **{name: value})
    with pytest.raises(ValueError, match="num_frames is 4 in the model of"):
        make_task(PretrainOptions(**given, num_frames=8), CPU)
    run = ["--source", "noise", "--limit", "6", "--image-size", "20", "--init", str(tmp_path / "start"), "--batch-size", "2", "--cpu"]
    main([*run, "--max-steps", "2", "--out", str(tmp_path / "run")])
    first = VideoMAEForPreTraining.from_pretrained(tmp_path / "run" / "model")
    assert first.config.num_frames == 4
    main(["--resume", "--max-steps", "3", "--out", str(tmp_path / "run")])
