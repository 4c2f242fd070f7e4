"""The VideoMAE reference trainer: pre-training on pseudo-motion, fine-tuning, testing."""
