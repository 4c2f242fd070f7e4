"""The examples of the documentation: each is run, or called by the protocol of the library that it plugs into."""

import importlib.util
import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import save
from torch import nn
from torch.utils.data import DataLoader, default_collate
from transformers import Trainer, TrainingArguments, VideoMAEConfig, VideoMAEForPreTraining

from pseudomotion import PMG, Mixup, PseudoMotionDataset
from pseudomotion.images import ImageFolder, batches

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"


def example(name):
    """A module of the examples; they are in no package."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # workers look it up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def folder(tmp_path):
    for k in range(6):
        save(tmp_path / "images" / f"{k}.png", k)
    return tmp_path / "images"


def test_plans_made_by_workers(folder):
    """The clips are those that PMG makes of the same images and ids, in any number of workers, and others in the next epoch."""
    module = example("planned_by_workers")
    small, runs = {"size": 16, "batch_size": 4}, ((0, 0), (0, 2), (1, 0))
    epochs = [list(module.clips_of_epoch(str(folder), epoch, num_workers=workers, **small)) for epoch, workers in runs]
    assert [len(clips) for clips in epochs[0]] == [4, 2]
    assert all(torch.equal(a, b) for a, b in zip(epochs[0], epochs[1], strict=True))
    assert not torch.equal(epochs[0][0], epochs[2][0])
    ids = torch.randperm(6, generator=torch.Generator().manual_seed(1))[:4] + 6
    pmg = PMG(size=16, mix=Mixup(), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    assert torch.equal(epochs[2][0], pmg(ImageFolder(folder, 256).get(ids), ids=ids))


def model_of_trainer():
    torch.manual_seed(0)
    sizes = {"image_size": 16, "patch_size": 8, "num_frames": 4, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    decoder = {"decoder_hidden_size": 8, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2}
    return VideoMAEForPreTraining(VideoMAEConfig(**sizes, **decoder, use_mean_pooling=False))


@pytest.mark.filterwarnings("ignore")
def test_hugging_face_trainer(folder, tmp_path):
    """Ids go on over the epochs, and a run that is resumed ends with the weights of one that was not stopped."""
    module = example("huggingface_trainer")
    images = ImageFolder(folder, 20)
    seen = []

    class Watched(module.PMGTrainer):
        def compute_loss(self, model, inputs, **more):
            seen.append(list(inputs["ids"]))
            return super().compute_loss(model, inputs, **more)

    def run(name, **more):
        arguments = {"num_train_epochs": 2, "per_device_train_batch_size": 3, "save_steps": 3, "report_to": [], "use_cpu": True}
        options = TrainingArguments(str(tmp_path / name), disable_tqdm=True, **arguments)
        trainer = Watched(model_of_trainer(), options, images)
        trainer.train(**more)
        return trainer.model.state_dict()

    whole = run("whole")
    assert sorted(id_ for ids in seen[:2] for id_ in ids) == list(range(6))
    assert sorted(id_ for ids in seen[2:] for id_ in ids) == list(range(6, 12))
    resumed = run("resumed", resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-3"))
    assert seen[4] == seen[3]
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("workers", [0, 1])
def test_hugging_face_trainer_on_a_dataset_of_clips(folder, tmp_path, workers):
    """With the callback of docs/loops.md, every epoch has other ids."""
    text, seen = (EXAMPLES.parent / "loops.md").read_text(), []
    found = {}
    exec(next(block for block in re.findall(r"```python\n(.*?)```", text, re.S) if "TrainerCallback" in block), found)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3 * 2 * 8 * 8, 1)

        def forward(self, video, id, label):
            seen.append(id.tolist())
            return {"loss": self.layer(video.flatten(1).float()).mean()}

    dataset = PseudoMotionDataset(ImageFolder(folder, 10), PMG(num_frames=2, size=8))
    more = {"remove_unused_columns": False, "dataloader_num_workers": workers, "dataloader_persistent_workers": workers > 0}
    arguments = {"num_train_epochs": 2, "per_device_train_batch_size": 3, "save_strategy": "no", "report_to": [], "use_cpu": True}
    options = TrainingArguments(str(tmp_path / "run"), disable_tqdm=True, **arguments, **more)
    Trainer(Model(), options, default_collate, dataset, callbacks=[found["Epochs"](dataset)]).train()
    assert sorted(id_ for ids in seen[:2] for id_ in ids) == list(range(6))
    assert sorted(id_ for ids in seen[2:] for id_ in ids) == list(range(6, 12))


@pytest.mark.filterwarnings("ignore")
def test_lightning(folder, tmp_path):
    lightning = pytest.importorskip("pytorch_lightning", reason="Lightning is not installed")
    module = example("lightning_module")
    pmg = PMG(num_frames=2, size=8, mean=(0.5,) * 3, std=(0.25,) * 3)
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 2 * 8 * 8, 8))
    trained = module.PseudoMotionModule(network, pmg)
    before = network[1].weight.clone()
    trainer = lightning.Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    trainer.fit(trained, DataLoader(list(batches(ImageFolder(folder, 16), 3)), batch_size=None))
    assert not torch.equal(network[1].weight, before)
    images, ids = torch.zeros(2, 3, 16, 16, dtype=torch.uint8), torch.tensor([0, 5])
    moved, kept = trained.transfer_batch_to_device((images, ids), torch.device("meta"), 0)
    assert (moved.device.type, kept.device.type) == ("meta", "cpu")
    clips, labels = trained.on_after_batch_transfer((images, ids), 0)
    assert torch.equal(clips, pmg(images, ids=ids))
    assert torch.equal(labels, pmg.plan(images.shape, ids=ids).transform)


def test_mmaction2(folder, monkeypatch):
    """By the protocol of MMCV: a registered class, called with the dictionary of a sample; the keys are those that FormatShape reads."""
    registered = {}

    class Base:
        def __call__(self, results):
            return self.transform(results)

    def register_module():
        return lambda kind: registered.setdefault(kind.__name__, kind)

    stand_ins = {"mmaction": {}, "mmaction.registry": {"TRANSFORMS": types.SimpleNamespace(register_module=register_module)}}
    for name, content in (stand_ins | {"mmcv": {}, "mmcv.transforms": {"BaseTransform": Base}}).items():
        module = types.ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    example("mmaction2_transform")
    transform = registered["PseudoMotion"](num_frames=4, size=16)
    np.random.seed(0)  # noqa: NPY002  as MMEngine seeds its workers
    sample = {"filename": str(folder / "3.png"), "label": 7, "sample_idx": 3}
    first, second = transform(dict(sample)), transform(dict(sample))
    assert [frame.shape for frame in first["imgs"]] == [(16, 16, 3)] * 4
    assert {frame.dtype for frame in first["imgs"]} == {np.dtype(np.uint8)}
    assert (first["label"], first["clip_len"], first["num_clips"], first["img_shape"]) == (7, 4, 1, (16, 16))
    assert any((a != b).any() for a, b in zip(first["imgs"], second["imgs"], strict=True))
    np.random.seed(0)  # noqa: NPY002  as MMEngine seeds its workers
    again = transform(dict(sample))
    assert all((a == b).all() for a, b in zip(first["imgs"], again["imgs"], strict=True))
