"""A process of Ray that answers for environments, on whichever machine of the cluster it is put."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from dreamer_agent.envs.child import Asked, surroundings
from dreamer_agent.envs.worker import answer
from dreamer_agent.ray_connection import connect, import_ray


class Worker:
    """What runs there."""

    def __init__(self) -> None:
        self.envs: dict[int, Any] = {}

    def answer(self, place: int, command: str, argument: Any) -> bytes:
        """See `worker.answer`."""
        return answer(self.envs, place, command, argument)


class RayActor:
    """A `Link` to an actor, which ends with this process, of the cluster at `address` (see `connect`).

    Actors are spread over the machines. Ray counts no CPU for them, so that it can start as many as are wanted.
    """

    def __init__(self, address: str):
        connect(address)
        self.ray = import_ray()
        options = {
            "num_cpus": 0,
            "scheduling_strategy": "SPREAD",
            "runtime_env": {"env_vars": surroundings()},
        }
        self.actor = self.ray.remote(Worker).options(**options).remote()
        self.answers: list[Any] = []  # promised

    def send(self, asked: Sequence[Asked]) -> None:
        """See `Link`: a call for each, which Ray keeps in order."""
        self.answers = [self.actor.answer.remote(*one) for one in asked]

    def wait(self, seconds: float) -> bool:
        """See `Link`."""
        try:
            return len(self._ready(seconds)) == len(self.answers)
        except self.ray.exceptions.RayError:  # of the cluster: `receive` says so
            return True

    def done(self) -> int:
        """See `Link`."""
        count = 0
        with contextlib.suppress(self.ray.exceptions.RayError):  # in order: none after one that is lost
            for promised in self._ready(0.0):
                self.ray.get(promised)
                count += 1
        return count

    def receive(self) -> list[bytes]:
        """See `Link`."""
        try:
            return list(self.ray.get(self.answers))
        except self.ray.exceptions.RayError as error:
            raise EOFError from error

    def ended(self) -> str:
        """See `Link`: what Ray says of it."""
        try:
            self.ray.get(self.answers)
        except self.ray.exceptions.RayError as error:
            return f"in Ray ({str(error).splitlines()[0].rstrip('.')})"
        return "in Ray"

    def kill(self) -> None:
        """See `Link`."""
        if self.ray.is_initialized():  # else it has ended with the connection
            with contextlib.suppress(self.ray.exceptions.RayError):  # and here with the cluster
                self.ray.kill(self.actor)

    def _ready(self, seconds: float) -> list[Any]:
        ready, _ = self.ray.wait(self.answers, num_returns=len(self.answers), timeout=seconds)
        return list(ready)
