"""How fast clips are made, beside the floor that memory sets and beside the libraries that do some of the same. ``python -m benchmarks``."""
