"""Training an optical flow network on the fly: clips and their exact flow come from images, nothing is stored.

    python flow_training.py FOLDER_OF_IMAGES

The network here compares each pixel with those around it in the next frame; RAFT or any other takes its place.
For point tracks, ask the dataset for ``labels=["tracks"]``: each item then has "tracks" (T, N, 2) and "visible" (T, N).
"""

import sys

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from pseudomotion import PMG, PseudoMotionDataset
from pseudomotion.images import ImageFolder
from pseudomotion.transforms import Affine


class SmallNetwork(nn.Module):
    """From two frames (B, 3, h, w) to the flow between them (B, 2, h, w)."""

    def __init__(self, reach: int = 4, channels: int = 32) -> None:
        super().__init__()
        self.reach = reach  # pixels
        self.layers = nn.Sequential(
            nn.Conv2d((2 * reach + 1) ** 2, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=2, dilation=2),
            nn.ReLU(),
            nn.Conv2d(channels, 2, 3, padding=1),
        )

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        around, (h, w) = F.pad(second, [self.reach] * 4, mode="replicate"), first.shape[-2:]
        steps = range(2 * self.reach + 1)
        moved = torch.stack([around[..., y : y + h, x : x + w] for y in steps for x in steps], 1)  # (B, n, 3, h, w)
        return self.layers(10 * (moved - first[:, None]).abs().mean(2))


def train(
    images: str, *, size: int = 64, epochs: int = 20, batch_size: int = 8, num_workers: int = 2, device: str = "cpu"
) -> list[tuple[float, float]]:
    """Returns of each epoch the mean endpoint error in pixels, over the pixels that stay visible, and that of predicting no motion."""
    motion = Affine(degrees=(-5, 5), translate=(-0.05, 0.05), scale=(0.95, 1.05))  # larger than for pre-training: two frames, not sixteen
    pmg = PMG((motion,), num_frames=2, size=size, padding_mode="reflection")
    dataset = PseudoMotionDataset(ImageFolder(images, size * 8 // 7), pmg, labels=["flow", "occlusion"])
    loader = DataLoader(dataset, batch_size, shuffle=True, num_workers=num_workers, persistent_workers=num_workers > 0)
    network = SmallNetwork().to(device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
    errors = []
    for epoch in range(epochs):
        dataset.set_epoch(epoch)  # another motion of every image
        sums = torch.zeros(3)
        for batch in loader:
            video, flow, occlusion = (batch[name].to(device) for name in ("video", "flow", "occlusion"))
            first, second = (video.float() / 255).unbind(2)  # (B, 3, h, w) each
            visible, flow = ~occlusion[:, 0], flow[:, 0]
            error = torch.linalg.vector_norm(network(first, second) - flow, dim=1)[visible]
            optimizer.zero_grad()
            error.mean().backward()
            optimizer.step()
            still = torch.linalg.vector_norm(flow, dim=1)[visible]
            sums += torch.stack([error.detach().sum(), still.sum(), visible.sum()]).cpu()
        errors.append((float(sums[0] / sums[2]), float(sums[1] / sums[2])))
    return errors


if __name__ == "__main__":
    for epoch, (error, still) in enumerate(train(sys.argv[1])):
        print(f"epoch {epoch}: endpoint error {error:.2f} pixels; of predicting no motion {still:.2f}")
