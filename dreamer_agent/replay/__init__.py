"""The store of experience: sequences in, batches out."""

from dreamer_agent.replay.device import DeviceReplay, ReplayState
from dreamer_agent.replay.host import HostReplay, replay_bytes, step_layout
from dreamer_agent.replay.saved import Mark, Saved
from dreamer_agent.replay.store import Index, ReplayStore

__all__ = [
    "DeviceReplay", "HostReplay", "Index", "Mark", "ReplayState", "ReplayStore", "Saved", "replay_bytes",
    "step_layout",
]  # fmt: skip
