"""What goes wrong in a way that a user can mend, each said in one sentence.

A message says what was given, what was expected and what to do. The command line prints it without a
traceback; the Python API raises it.
"""


class DreamerError(Exception):
    """Base of every error that the user can mend."""


class ConfigError(DreamerError):
    """An unknown key, preset or value in the configuration."""


class SpaceError(DreamerError):
    """An observation or action space that cannot be encoded."""


class EnvironmentFault(DreamerError):
    """An environment that breaks its own API (shape, type, finite numbers)."""


class MemoryBudgetError(DreamerError):
    """A model or a replay that does not fit the memory of this machine."""


class RunDirectoryError(DreamerError):
    """A run directory that belongs to another environment or model."""


class NumericsError(DreamerError):
    """Losses or gradients that stay infinite or NaN."""


class ProcessLostError(DreamerError):
    """Another process of the same run that has ended, or cannot be reached."""


class MissingExtraError(DreamerError):
    """An optional dependency that is not installed."""


def missing_extra(package: str, extra: str) -> MissingExtraError:
    """The error for an import of `package` that needs the optional dependencies `extra`."""
    return MissingExtraError(
        f"The package '{package}' is not installed, and this needs it: "
        f"install it with `pip install 'dreamer-agent[{extra}]'` (in a checkout: `pip install '.[{extra}]'`)."
    )
