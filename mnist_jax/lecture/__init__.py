"""What only the lecture needs."""
