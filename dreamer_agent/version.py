"""The version of this library, which checkpoints carry."""

VERSION = "0.1.0"
