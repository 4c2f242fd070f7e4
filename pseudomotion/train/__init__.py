"""The VideoMAE reference trainer, and what validates it."""
