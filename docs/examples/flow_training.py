"""Training an optical flow network on the fly: clips and their exact flow come from images, nothing is stored.

    python flow_training.py FOLDER_OF_IMAGES

The network here is a few convolutions that look at two frames; RAFT or any other takes its place. For point tracks, ask the dataset for
``labels=["tracks"]``: each item then has "tracks" (T, N, 2) and "visible" (T, N).
"""

import sys

import torch
from torch import nn
from torch.utils.data import DataLoader

from pseudomotion import PMG, PseudoMotionDataset
from pseudomotion.images import ImageFolder
from pseudomotion.transforms import Affine


def small_network() -> nn.Module:
    """From two frames (B, 6, h, w) to flow (B, 2, h, w)."""
    layers: list[nn.Module] = []
    for channels, after, dilation in ((6, 32, 1), (32, 32, 2), (32, 32, 4), (32, 32, 8)):
        layers += [nn.Conv2d(channels, after, 3, padding=dilation, dilation=dilation), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(32, 2, 3, padding=1))


def train(images: str, *, size: int = 64, epochs: int = 4, batch_size: int = 8, num_workers: int = 2, device: str = "cpu") -> list[float]:
    """Returns the mean endpoint error of each epoch, in pixels, over the pixels that stay visible."""
    motion = Affine(degrees=(-10, 10), translate=(-0.1, 0.1), scale=(0.9, 1.1))  # larger than for pre-training: two frames, not sixteen
    pmg = PMG((motion,), num_frames=2, size=size, padding_mode="reflection")
    dataset = PseudoMotionDataset(ImageFolder(images, size * 8 // 7), pmg, labels=["flow", "occlusion"])
    loader = DataLoader(dataset, batch_size, shuffle=True, num_workers=num_workers, persistent_workers=num_workers > 0)
    network = small_network().to(device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
    errors = []
    for epoch in range(epochs):
        dataset.set_epoch(epoch)  # another motion of every image
        total = count = 0.0
        for batch in loader:
            video, flow, occlusion = (batch[name].to(device) for name in ("video", "flow", "occlusion"))
            frames = video.float().div(255).transpose(1, 2).flatten(1, 2)  # (B, 3, 2, h, w) to (B, 6, h, w)
            error = torch.linalg.vector_norm(network(frames) - flow[:, 0], dim=1)[~occlusion[:, 0]]
            optimizer.zero_grad()
            error.mean().backward()
            optimizer.step()
            total, count = total + float(error.detach().sum()), count + len(error)
        errors.append(total / count)
    return errors


if __name__ == "__main__":
    print("endpoint error by epoch:", *(f"{error:.2f}" for error in train(sys.argv[1])))
