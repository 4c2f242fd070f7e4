"""Input of fine-tuning and testing: labeled views of videos, and their augmentation."""
