"""A training loop whose DataLoader workers read images and plan the motion, so that the training process only renders.

A plan is small, a clip is large: a worker sends 8 KB a clip instead of 2.4 MB.
"""

import torch
from torch.utils.data import DataLoader, Dataset

from pseudomotion import PMG, Mixup
from pseudomotion.images import ImageFolder
from pseudomotion.plan import MotionPlan


class PlannedBatches(Dataset):
    """Batch k of an epoch: images and the plan of their clips.

    An id counts images over all epochs, so the same image moves differently in each; it fixes the clip, whatever the number of workers.
    """

    def __init__(self, images: ImageFolder, pmg: PMG, batch_size: int, epoch: int) -> None:
        self.images, self.pmg = images, pmg
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(epoch))
        self.batches = (order + epoch * len(images)).split(batch_size)

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, k: int) -> tuple[torch.Tensor, MotionPlan]:
        images = self.images.get(self.batches[k])  # uint8 (B, 3, H, W)
        return images, self.pmg.plan(images.shape, ids=self.batches[k])


def clips_of_epoch(folder: str, epoch: int, *, device: str = "cpu", num_workers: int = 2, size: int = 224, batch_size: int = 32):
    """Clips (B, C, T, size, size) of an epoch, rendered on a device."""
    pmg = PMG(size=size, mix=Mixup(), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    batches = PlannedBatches(ImageFolder(folder, 256), pmg, batch_size, epoch)
    for images, plan in DataLoader(batches, batch_size=None, num_workers=num_workers, pin_memory=device != "cpu"):
        yield pmg.render(images.to(device, non_blocking=True), plan)
