"""Still images to make clips from: single files, sources, and streams."""

from pseudomotion.images.bank import ImageBank
from pseudomotion.images.files import load_image
from pseudomotion.images.folder import ImageFolder, ShadersFolder
from pseudomotion.images.huggingface import HFImages, HFStream
from pseudomotion.images.picture import builtin_picture
from pseudomotion.images.shards import Shards
from pseudomotion.images.textures import load_textures
from pseudomotion.images.videos import VideoFrames
from pseudomotion.source import FileSource, ImageSource, batches

__all__ = [
    "FileSource",
    "HFImages",
    "HFStream",
    "ImageBank",
    "ImageFolder",
    "ImageSource",
    "ShadersFolder",
    "Shards",
    "VideoFrames",
    "batches",
    "builtin_picture",
    "load_image",
    "load_textures",
]
