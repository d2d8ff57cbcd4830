"""Environments as exact models: what planners can do when the model is right."""
