"""Renderers: ``(images, plan) -> clips``. ``choice`` picks one and says why."""
