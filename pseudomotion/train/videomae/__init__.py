"""VideoMAE: the models of transformers in the published sizes, masked modeling, and classification."""
