"""Reading and writing video files, and clips from lists of them.

Names are imported on first use, as those of ``pseudomotion`` are, so that ``pseudomotion.video.lists`` starts without torch.
"""

import importlib
import typing

if typing.TYPE_CHECKING:
    from pseudomotion.video.clips import VideoClips
    from pseudomotion.video.read import read_clip, read_frames
    from pseudomotion.video.write import write_video

__all__ = ["VideoClips", "read_clip", "read_frames", "write_video"]

_HOMES = {"VideoClips": "clips", "read_clip": "read", "read_frames": "read", "write_video": "write"}

if not typing.TYPE_CHECKING:  # a type checker reads the imports above instead

    def __getattr__(name):
        """Import a public name on first use (PEP 562)."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
        return value

    def __dir__():
        return sorted({*globals(), *_HOMES})
