"""One program per implementation. Each runs in its own Python and needs only common.py of this repository."""
