"""Games of the Atari 2600 (`atari:pong`) by ale_py, in the protocols that scores are published in."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
from gymnasium.wrappers import AtariPreprocessing

from dreamer_agent.envs.suites.libraries import library, refuse_unknown

# The 26 games of Atari 100k (Kaiser et al. 2020, SimPLe).
ATARI_100K = (
    "alien", "amidar", "assault", "asterix", "bank_heist", "battle_zone", "boxing", "breakout",
    "chopper_command", "crazy_climber", "demon_attack", "freeway", "frostbite", "gopher", "hero", "jamesbond",
    "kangaroo", "krull", "kung_fu_master", "ms_pacman", "pong", "private_eye", "qbert", "road_runner",
    "seaquest", "up_n_down",
)  # fmt: skip

# The 57 games that scores relative to humans are averaged over.
ATARI_57 = tuple(sorted((
    *ATARI_100K, "asteroids", "atlantis", "beam_rider", "berzerk", "bowling", "centipede", "defender",
    "double_dunk", "enduro", "fishing_derby", "gravitar", "ice_hockey", "montezuma_revenge",
    "name_this_game", "phoenix", "pitfall", "riverraid", "robotank", "skiing", "solaris", "space_invaders",
    "star_gunner", "surround", "tennis", "time_pilot", "tutankham", "venture", "video_pinball",
    "wizard_of_wor", "yars_revenge", "zaxxon",
)))  # fmt: skip


def make_game(
    name: str, size: int = 64, grey: bool = False, sticky: float = 0.0, full_actions: bool = False,
    repeat: int = 4, noops: int = 30, life_ends: bool = False, max_frames: int = 108_000,
) -> gym.Env:  # fmt: skip
    """A game as one image `[size, size(, 3)]`; unless told otherwise as in Atari 100k.

    An action is held for `repeat` frames, the last two of which are merged by their brighter pixels. `sticky` is
    the chance of each frame that the action before is repeated (0.25 in the protocol of Machado et al. 2018,
    which also takes all 18 actions: `full_actions`). Episodes begin with up to `noops` idle frames (see
    `IdleStart`), and are truncated after `max_frames`, these included (half an hour of play). `life_ends`: a lost
    life ends an episode, too.
    """
    ale_py = library("atari", "ale_py", "ale-py")
    library("atari", "cv2", "opencv-python-headless")
    gym.register_envs(ale_py)
    title = f"ALE/{''.join(word.capitalize() for word in name.split('_'))}-v5"
    if title not in gym.registry:
        refuse_unknown("atari", name, ATARI_57)
    env = gym.make(
        title, frameskip=1, repeat_action_probability=sticky, full_action_space=full_actions,
        max_num_frames_per_episode=max_frames, disable_env_checker=True,
    )  # fmt: skip
    return AtariPreprocessing(
        IdleStart(env, noops), noop_max=0, frame_skip=repeat, screen_size=(size, size), grayscale_obs=grey,
        terminal_on_life_loss=life_ends,
    )  # fmt: skip


class IdleStart(gym.Wrapper):
    """Begins episodes with idle frames, from none to `most`, each number equally likely.

    gymnasium's own begin with at least one.
    """

    def __init__(self, env: gym.Env, most: int):
        super().__init__(env)
        self.most = most

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        """As gymnasium's; the number follows from the seed."""
        obs, info = self.env.reset(seed=seed, options=options)
        for _ in range(self.unwrapped.np_random.integers(self.most + 1)):
            obs, _, terminated, truncated, info = self.env.step(0)
            if terminated or truncated:
                obs, info = self.env.reset(options=options)
        return obs, info


def tasks() -> list[str]:
    """The names of the 57 games; the emulator's others are known, too."""
    return list(ATARI_57)
