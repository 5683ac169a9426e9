"""Speed, measured beside other frameworks: what experiments.benchmark runs."""
