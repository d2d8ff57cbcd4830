"""Sweeps: environments x seeds x settings from one YAML file, launched, gone on with, and drawn."""
