"""The store of experience: sequences in, batches out."""

from dreamer_agent.replay.host import HostReplay, replay_bytes, step_layout

__all__ = ["HostReplay", "replay_bytes", "step_layout"]
