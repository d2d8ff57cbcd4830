"""Benchmarks: many runs of one definition, scored by one protocol, in a report beside published numbers."""
