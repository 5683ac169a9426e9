"""Throughput compared with other frameworks: what `python -m mnist_jax benchmark` runs. Not part of the wheel."""
