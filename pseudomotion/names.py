"""Names that command lines offer, without the modules that define them: those import torch, and ``--help`` must not wait for it.

A test compares every tuple with its definition.
"""

TRANSFORMS = ("identity", "sliding_window", "zoom", "fade", "affine", "perspective", "color_jitter", "cutmix")
SOURCES = ("shaders", "fractaldb", "visual_atom", "dead_leaves", "noise")
EXTRA_TRANSFORMS = ("elastic", "shake")
OBJECTS = ("mixed", "yu2024", "smile2025")
SHOWS = ("flow", "tracks", "grid", "instances")
PADDING_MODES = ("zeros", "border", "reflection")
RESAMPLINGS = ("recursive", "composed")
PREVIEW_SUFFIXES = (".mp4", ".gif", ".webp", ".png")
