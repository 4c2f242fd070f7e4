"""Speed of clip generation, compared with memory bandwidth and with other libraries. Run ``python -m benchmarks``."""
