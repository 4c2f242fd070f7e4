"""Images made from nothing: endless, free of licences, on any device. Each source gives the same image for the same id."""

from pseudomotion.images.synthetic.shaders import Shaders

__all__ = ["Shaders"]
