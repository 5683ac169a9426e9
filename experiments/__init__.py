"""One small file an experiment: a recipe and the result it claims."""
