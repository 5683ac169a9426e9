"""The commands of `python -m mnist_jax NAME`, one module per command."""
