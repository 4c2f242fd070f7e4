"""Still images to make clips of."""

from pseudomotion.images.files import load_image
from pseudomotion.images.picture import builtin_picture

__all__ = ["builtin_picture", "load_image"]
