"""Sweeps: many seeds and settings of an experiment in one command, on one machine or many."""
