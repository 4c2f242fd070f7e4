"""What every training command shares: the loop, its stream of ids, checkpoints, logs and options. Nothing here knows about video."""
