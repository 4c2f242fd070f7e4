"""How fast clips are made, beside the floor that memory sets and beside other libraries. Run ``python -m benchmarks``."""
