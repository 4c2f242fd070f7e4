"""Renderers: ``(images, plan) -> clips``."""
