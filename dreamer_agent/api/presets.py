"""The preset "auto": what a configuration starts from when the user names none."""

from __future__ import annotations

import jax

from dreamer_agent.specs import Specs, split_specs

AUTO = "auto"


def auto_presets(obs_specs: Specs) -> list[str]:
    """Presets for an environment with these observations on the device at hand.

    On a CPU, `classic` for vectors and `pixels` where there is an image: small networks that are updated often.
    On an accelerator, V3's sizes: `size/1m` for vectors and `size/12m` for images.
    """
    has_images = bool(split_specs(obs_specs)[1])
    if jax.default_backend() == "cpu":
        return ["pixels" if has_images else "classic"]
    return ["size/12m" if has_images else "size/1m"]
