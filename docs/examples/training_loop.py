"""A training loop on pseudo-motion clips: a small network learns to tell, from one clip, which transform made it.

Run by ``make demo``; takes about half a minute on two cores. The images are one built-in picture, cut into random views.
"""

import torch
from torch import nn
from tqdm import trange

from pseudomotion import PMG, TRANSFORMS
from pseudomotion.images import builtin_picture

NAMES = ("sliding_window", "zoom", "affine", "fade")

torch.manual_seed(0)
images = builtin_picture(256, 256).expand(32, -1, -1, -1)
pmg = PMG(NAMES, num_frames=8, size=48, crop=(0.2, 1.0), mean=(0.5,) * 3, std=(0.25,) * 3)
model = nn.Sequential(
    nn.Conv3d(3, 24, (3, 5, 5), stride=(1, 4, 4), padding=1),
    nn.ReLU(),
    nn.Conv3d(24, 48, 3, stride=2, padding=1),
    nn.ReLU(),
    nn.Conv3d(48, 48, 3, stride=2, padding=1),
    nn.ReLU(),
    nn.AdaptiveAvgPool3d(1),
    nn.Flatten(),
    nn.Linear(48, len(NAMES)),
)
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
known = torch.tensor([list(TRANSFORMS).index(name) for name in NAMES])
correct = []

for step in (bar := trange(150, desc="training", unit="step", mininterval=1)):
    ids = torch.arange(len(images)) + step * len(images)  # no clip comes twice, and a rerun makes the same ones
    plan = pmg.plan(images.shape, ids=ids)
    clips = pmg.render(images, plan)
    labels = (plan.transform[:, None] == known).int().argmax(1)
    logits = model(clips)
    loss = nn.functional.cross_entropy(logits, labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    correct.append((logits.argmax(1) == labels).float().mean().item())
    bar.set_postfix(loss=f"{loss.item():.2f}", refresh=False)

print(f"right about the transform: {sum(correct[:10]) / 10:.0%} in the first ten steps, {sum(correct[-10:]) / 10:.0%} in the last ten")
