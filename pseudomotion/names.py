"""Names that command lines offer, without the modules that define them: those import torch, and ``--help`` must not wait for it.

``TRANSFORMS``, ``EXTRA_TRANSFORMS`` and ``SOURCES`` also say what is registered, and in which order. A test compares the others with their
definitions.
"""

TRANSFORMS = ("identity", "sliding_window", "zoom", "fade", "affine", "perspective", "color_jitter", "cutmix")
EXTRA_TRANSFORMS = ("elastic", "shake")
SOURCES = ("shaders", "fractaldb", "visual_atom", "dead_leaves", "noise")
OBJECTS = ("mixed", "yu2024", "smile2025", "cutouts")
SHOWS = ("flow", "tracks", "grid", "instances")
PADDING_MODES = ("zeros", "border", "reflection")
RESAMPLINGS = ("recursive", "composed")
PREVIEW_SUFFIXES = (".mp4", ".gif", ".webp", ".png")
