"""The game in a browser: one page, served to this machine alone."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from dreamer_agent.errors import ConfigError, DreamerError
from dreamer_agent.play.recording import Recorder
from dreamer_agent.play.session import Moment, Session, Side

PAGE = Path(__file__).with_name("page.html")
HERE = ("127.0.0.1", "localhost", "[::1]")
LONGEST = 100_000  # bytes of a request


class Server(ThreadingHTTPServer):
    """Serves `session` at `self.url`; `players` are who may act beside a person. Steps go to `recorder`.

    Only requests of pages from this very address are answered. Raises `ConfigError` where the port is taken.
    """

    daemon_threads = True

    def __init__(
        self, session: Session, recorder: Recorder, players: list[str], fps: float = 10.0, port: int = 0
    ):
        self.session, self.recorder, self.lock = session, recorder, Lock()
        self.spec = {
            "task": session.task, "players": players, "fps": fps, "real": session.real is not None,
            "controls": [
                {"name": c.key, "index": c.index, "classes": c.classes, "labels": c.labels, "idle": c.idle}
                for c in session.controls
            ],
            "bindings": {key: list(bound) for key, bound in session.bindings.items()},
        }  # fmt: skip
        try:
            super().__init__(("127.0.0.1", port), _Handler)
        except OSError as error:
            raise ConfigError(
                f"Port {port} of this machine cannot be used ({error}): give --port another."
            ) from error

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://127.0.0.1:{self.server_port}/"

    def answer(self, what: str, given: dict[str, Any]) -> dict[str, Any]:
        """What a request comes to; `ConfigError` for one that there is not, or that asks for the impossible."""
        answers: dict[str, Callable[[], dict[str, Any]]] = {
            "spec": lambda: self.spec,
            "now": lambda: self._told(self.session.moment),
            "reset": lambda: self._told(self.recorder.add(self.session.reset(given.get("seed")))),
            "step": lambda: self._told(
                self.recorder.add(self.session.step(str(given.get("who", "human")), given.get("values")))
            ),
            "peek": lambda: self._told(self.recorder.add(self.session.peek())),
            "record": lambda: {"written": [str(path) for path in self.recorder.write()]},
        }
        if what not in answers:
            raise ConfigError(f"'{what}' cannot be asked for: ask for {', '.join(answers)}.")
        with self.lock:
            return answers[what]()

    def _told(self, moment: Moment) -> dict[str, Any]:
        return {
            "seed": self.session.seed, "steps": moment.steps, "action": moment.action, "who": moment.who,
            "dream": _side(moment.dream), "real": None if moment.real is None else _side(moment.real),
            "over": self.session.over, "recorded": len(self.recorder.moments), **moment.thoughts._asdict(),
        }  # fmt: skip


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        if not self._from_here():
            return
        if self.path == "/":
            self._send(HTTPStatus.OK, PAGE.read_bytes(), "text/html; charset=utf-8")
        else:
            self._answer(self.path, {})

    def do_POST(self) -> None:
        if not self._from_here():
            return
        if self.headers.get_content_type() != "application/json":  # what no form of another page can send
            self._fail(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Send application/json.")
            return
        length = int(self.headers.get("Content-Length") or 0)
        if not 0 <= length <= LONGEST:
            self._fail(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"Send less than {LONGEST:,} bytes.")
            return
        try:
            given = json.loads(self.rfile.read(length) or b"{}")
        except ValueError:
            given = None
        if isinstance(given, dict):
            self._answer(self.path, given)
        else:
            self._fail(HTTPStatus.BAD_REQUEST, "Send a JSON object.")

    def _answer(self, path: str, given: dict[str, Any]) -> None:
        try:
            content = self.server.answer(path.strip("/"), given)
        except DreamerError as error:
            self._fail(HTTPStatus.BAD_REQUEST, str(error))
        except (TypeError, ValueError) as error:
            self._fail(HTTPStatus.BAD_REQUEST, f"That cannot be understood ({error}).")
        else:
            self._send(HTTPStatus.OK, json.dumps(content).encode(), "application/json")

    def _from_here(self) -> bool:
        """Whether the browser was asked for this address: a foreign name may point here, too."""
        name = (self.headers.get("Host") or "").rsplit(":", 1)[0]
        if name in HERE:
            return True
        self._fail(HTTPStatus.FORBIDDEN, "Only this machine's own address is served.")
        return False

    def _fail(self, status: HTTPStatus, why: str) -> None:
        self._send(status, json.dumps({"error": why}).encode(), "application/json")

    def _send(self, status: HTTPStatus, content: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Nothing: a line for every step helps nobody."""


def _side(side: Side) -> dict[str, Any]:
    return {"frame": _png(side.frame), "reward": side.reward, "total": side.total, "ended": side.ended}


def _png(frame: np.ndarray) -> str:
    """An image as the address of itself."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(frame).save(file, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
