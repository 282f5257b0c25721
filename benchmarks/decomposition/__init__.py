"""Measurements of the Conv-TT decomposition."""
