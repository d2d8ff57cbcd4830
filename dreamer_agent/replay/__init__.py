"""The store of experience: sequences in, batches out."""

from dreamer_agent.replay.device import DeviceReplay, ReplayState
from dreamer_agent.replay.host import HostReplay, replay_bytes, step_layout

__all__ = ["DeviceReplay", "HostReplay", "ReplayState", "replay_bytes", "step_layout"]
