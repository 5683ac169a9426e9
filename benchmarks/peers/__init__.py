"""One program a contestant; each runs in its own Python, and needs of this repository only common.py."""
