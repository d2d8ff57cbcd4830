"""Faults that are provoked on purpose, and what they cost a run."""
