"""Outlines and plans of every kind, drawn at random, for tests of renderers and labels."""

import dataclasses

import numpy as np
import torch

from pseudomotion import PMG, outline
from pseudomotion.motion import Layers, Motion

KINDS = ("box", "triangle", "quadrilateral", "octagon", "rhombus", "ellipse", "squircle", "square_ellipse", "ring", "blob", "blob_ring")


def outline_of(kind, random, feather):
    """A row (NUMBERS,) of an outline."""
    feather, none = np.array([feather]), np.zeros(1)
    if kind == "box":
        return outline.boxes(feather)[0]
    if kind in ("triangle", "quadrilateral", "octagon"):
        n = {"triangle": 3, "quadrilateral": 4, "octagon": 8}[kind]
        angles = (np.arange(n) + random.uniform(-0.3, 0.3, n)) * 2 * np.pi / n
        return outline.polygons(np.stack([np.cos(angles), np.sin(angles)], -1)[None], feather)[0]
    if kind in ("blob", "blob_ring"):
        harmonics = random.uniform(-0.04, 0.04, (1, 6, 2))
        return outline.blobs(np.array([0.75]), harmonics, feather, none + (0.4 if kind == "blob_ring" else 0))[0]
    power = {"rhombus": 0, "ellipse": 1, "squircle": 2, "square_ellipse": 3, "ring": 1}[kind]
    return outline.superellipses(none + power, feather, none + (0.5 if kind == "ring" else 0))[0]


def bends(random, *shape, grid=5, most=0.45):
    return torch.from_numpy(random.uniform(-most, most, (*shape, 2, grid, grid))).float()


def cut_outs(smooth, *shape):
    """RGBA textures of which a part is opaque, a part transparent."""
    textures = smooth(*shape)
    textures[:, 3] = (6 * textures[:, 3] - 2.5).clamp(0, 1)
    return textures


def shaped_plan(
    names, batch=11, frames=4, image=(37, 45), size=(33, 29), kinds=KINDS, layers=3, seed=0, bent=True, texture=None, **options
):
    """A plan whose layers have outlines of all kinds, move, bend, and come and go, over any back; the back bends too."""
    random = np.random.default_rng(seed)
    plan = PMG(names, frames, size, **options).plan((batch, 3, *image), ids=torch.arange(batch) + seed)
    (th, tw), (h, w) = texture or image, size
    rows = [[outline_of(kinds[(i + 4 * k) % len(kinds)], random, random.uniform(0.7, 4)) for k in range(layers)] for i in range(batch)]
    center = random.uniform(0.35, 0.65, (batch, layers, 2)) * (tw, th)
    half = random.uniform(0.12, 0.32, (batch, layers, 2)) * (tw, th)
    angle = random.uniform(-3, 3, (batch, layers, 1)) + random.uniform(-0.2, 0.2, (batch, layers, 1)) * np.arange(frames)
    zoom = random.uniform(0.5, 1.3, (batch, layers, 1)) * np.ones(frames)
    place = (
        random.uniform(-0.1, 1.1, (batch, layers, 1, 2)) * (w, h)
        + random.uniform(-2, 2, (batch, layers, 1, 2)) * np.arange(frames)[:, None]
    )
    matrix = np.zeros((batch, layers, frames, 3, 3))
    matrix[..., 0, 0], matrix[..., 0, 1] = zoom * np.cos(angle), -zoom * np.sin(angle)
    matrix[..., 1, 0], matrix[..., 1, 1] = zoom * np.sin(angle), zoom * np.cos(angle)
    matrix[..., 2, 2] = 1
    matrix[..., 2, 0] = random.uniform(-1e-3, 1e-3, (batch, layers, 1))
    matrix[..., :2, 2] = place - np.einsum("...tij,...j->...ti", matrix[..., :2, :2], center)
    color = np.tile(np.eye(3, 4), (batch, layers, frames, 1, 1))
    color[:, :1] *= 0.8
    opacity = np.ones((batch, layers, frames))
    opacity[:, -1:, 0], opacity[:, -1:, -1] = 0, 0.6
    tensor = lambda array: torch.from_numpy(array).float()  # noqa: E731
    own = Layers(
        texture=torch.from_numpy(random.integers(0, batch, (batch, layers))),
        box=tensor(np.concatenate([center - half, center + half], -1)),
        outline=tensor(np.array(rows).reshape(batch, layers, outline.NUMBERS)),
        motion=Motion(tensor(matrix), tensor(color), bend=bends(random, batch, layers, frames) if bent else None),
        opacity=tensor(opacity),
    )
    motion = plan.back.motion
    if bent:
        bend = bends(random, batch, frames, grid=4, most=0.3)
        bend[::3] = 0  # some clips have a rigid back
        motion = dataclasses.replace(motion, bend=bend)
    return dataclasses.replace(plan, back=dataclasses.replace(plan.back, motion=motion), layers=own, texture_size=texture)
