"""Playing the dream of a trained run: in a browser, in a terminal, or by the policy alone."""

from dreamer_agent.play.opening import open_session, play_browser, play_steps, play_terminal
from dreamer_agent.play.recording import Recorder
from dreamer_agent.play.server import Server
from dreamer_agent.play.session import Moment, Session

__all__ = [
    "Moment",
    "Recorder",
    "Server",
    "Session",
    "open_session",
    "play_browser",
    "play_steps",
    "play_terminal",
]
