"""PMG in Lightning: clips are made after the batch has arrived on the GPU."""

from typing import Any

import pytorch_lightning as lightning
import torch
from torch import Tensor, nn

from pseudomotion import PMG


class PseudoMotionModule(lightning.LightningModule):
    """Trains a network to tell which transform made a clip. A batch is images and ids, as ``pseudomotion.images.batches`` yields them."""

    def __init__(self, network: nn.Module, pmg: PMG) -> None:
        super().__init__()
        self.network, self.pmg = network, pmg

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Images go to the GPU; ids stay on the CPU, where PMG plans. On the GPU every step would wait for them."""
        images, ids = batch
        return super().transfer_batch_to_device(images, device, dataloader_idx), ids

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> tuple[Tensor, Tensor]:
        """Clips (B, C, T, h, w) and labels (B,), the number of each clip's transform."""
        images, ids = batch
        plan = self.pmg.plan(images.shape, ids=ids)
        return self.pmg.render(images, plan), plan.transform.to(images.device, non_blocking=True)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        clips, labels = batch
        loss = nn.functional.cross_entropy(self.network(clips), labels)
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.network.parameters(), lr=1e-3)
