"""Sizes of models and data for ``pmg-validate``. All are ours, none is the paper's."""

from dataclasses import dataclass
from typing import Any

from transformers import VideoMAEConfig

from pseudomotion.train.videomae.model import TUBELET_SIZE


@dataclass(frozen=True)
class Setting:
    """Sizes of everything, and learning rates.

    Args:
        width: of the encoder; its head count is a sixteenth, its decoder's width three quarters.
        layers: of the encoder; the decoder has one.
        frame_size: side of the frames in pixels.
        num_frames: T.
        patch_size: side of a token in pixels; a token is two frames deep.
        mask_ratio: share of the tokens that is hidden.
        batch_size: clips of a step.
        images: number that is pre-trained on; as many others make the labelled clips for training, and half as many those for testing.
        train_clips: number of labelled clips, of which ``shots`` per class count in low-shot training.
        test_clips: number of labelled clips to test on.
        shots: clips per class.
        light: of the probe's background, see ``Motions``.
        pretrain_lr: peak learning rate.
        classify_lr: peak learning rate of fine-tuning and low-shot training.
        probe_lr: peak learning rate of the probe on the frozen encoder.

    """

    width: int
    layers: int
    frame_size: int
    num_frames: int
    patch_size: int
    mask_ratio: float
    batch_size: int
    images: int
    train_clips: int
    test_clips: int
    shots: int
    light: float
    pretrain_lr: float
    classify_lr: float
    probe_lr: float

    def config(self, **more: Any) -> VideoMAEConfig:
        """Settings of the model."""
        return VideoMAEConfig(
            image_size=self.frame_size,
            num_frames=self.num_frames,
            patch_size=self.patch_size,
            tubelet_size=TUBELET_SIZE,
            hidden_size=self.width,
            num_hidden_layers=self.layers,
            num_attention_heads=self.width // 16,
            intermediate_size=4 * self.width,
            decoder_hidden_size=self.width * 3 // 4,
            decoder_num_hidden_layers=1,
            decoder_num_attention_heads=self.width * 3 // 64,
            decoder_intermediate_size=3 * self.width,
            layer_norm_eps=1e-6,
            **more,
        )


PRESETS = {
    "cpu": Setting(
        width=64,
        layers=2,
        frame_size=24,
        num_frames=6,
        patch_size=6,
        mask_ratio=0.75,
        batch_size=32,
        images=600,
        train_clips=2400,
        test_clips=600,
        shots=20,
        light=0.4,
        pretrain_lr=2e-3,
        classify_lr=2e-3,
        probe_lr=1e-2,
    ),
    "gpu": Setting(
        width=256,
        layers=6,
        frame_size=48,
        num_frames=8,
        patch_size=6,
        mask_ratio=0.75,
        batch_size=256,
        images=10_000,
        train_clips=24_000,
        test_clips=4_800,
        shots=40,
        light=1.0,
        pretrain_lr=1e-3,
        classify_lr=1e-3,
        probe_lr=5e-3,
    ),
}
