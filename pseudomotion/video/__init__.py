"""Reading and writing video files, and clips from lists of them."""

from pseudomotion.video.clips import VideoClips
from pseudomotion.video.read import read_clip, read_frames
from pseudomotion.video.write import write_video

__all__ = ["VideoClips", "read_clip", "read_frames", "write_video"]
