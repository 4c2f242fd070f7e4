"""Pre-training tasks that the paper compares with, apart from masked modeling."""
