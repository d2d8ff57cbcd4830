"""The Behaviour Suite (`bsuite:catch/0`): small experiments, each in several settings."""

from __future__ import annotations

from typing import Any

from dreamer_agent.envs.suites.dm_env import DmEnv
from dreamer_agent.envs.suites.libraries import library, refuse_unknown
from dreamer_agent.errors import ConfigError


class BsuiteEnv(DmEnv):
    """One setting of an experiment, "experiment/number", the number 0 unless given.

    What defines the setting follows from its number, what is drawn in episodes from the seed. Nothing is written
    in the suite's own log.
    """

    def __init__(self, name: str):
        suite, sweep = library("bsuite"), library("bsuite", "bsuite.sweep")
        known = [str(one) for one in sweep.SWEEP]
        name = name if "/" in name else f"{name}/0"
        if name not in known:
            refuse_unknown("bsuite", name.partition("/")[0], {one.partition("/")[0] for one in known})
            refuse_unknown("bsuite", name, [one for one in known if one.startswith(f"{name.partition('/')[0]}/")])
        if name.startswith("mnist"):
            raise ConfigError(
                f"bsuite:{name} needs the pictures of MNIST, which bsuite would download: choose another of its "
                "experiments (`dreamer-agent envs bsuite`)."
            )
        super().__init__(suite.load_from_id(name))

    def seed_task(self, seed: int) -> None:
        """Start what every layer of the experiment draws anew."""
        layer: Any = self.dm
        while layer is not None:
            chance = vars(layer).get("_rng")
            if chance is not None:
                chance.seed(seed)
            layer = vars(layer).get("_env")


def tasks() -> list[str]:
    """All settings that need no download."""
    names = [str(one) for one in library("bsuite", "bsuite.sweep").SWEEP]
    return [name for name in names if not name.startswith("mnist")]
