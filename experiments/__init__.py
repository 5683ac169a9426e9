"""Recipes: each file is an experiment and the result that it claims; run from the checkout."""
