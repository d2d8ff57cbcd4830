"""The worker's end of the pipe: one JSON request per line on stdin, one JSON reply per line on stdout.

Only the standard library is imported here, since workers run in the interpreters of others.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any


def serve(handlers: dict[str, Callable[..., dict[str, Any]]]) -> None:
    """Answer `{"do": name, ...}` by `handlers[name](...)` until stdin ends.

    An exception is answered by `{"error": text}`, with its traceback on stderr.
    """
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever libraries print goes to stderr, not among the replies
    for line in sys.stdin:
        request = json.loads(line)
        try:
            reply = handlers[request.pop("do")](**request)
        except Exception as error:
            traceback.print_exc()
            reply = {"error": f"{type(error).__name__}: {error}"}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


def timed(function: Callable[[], Any], seconds: float = 0.0, least: int = 1) -> list[float]:
    """Milliseconds of each call: at least `least` calls, and more until `seconds` have passed."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < least or time.perf_counter() < end:
        start = time.perf_counter()
        function()
        times.append(1e3 * (time.perf_counter() - start))
    return times


def peak_memory() -> dict[str, int]:
    """The largest resident memory of this process so far, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss is inherited from the parent on Linux, this is not
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return {"peak_rss": 1024 * int(fields["VmHWM"].split()[0])}
    unit = 1 if sys.platform == "darwin" else 1024
    return {"peak_rss": unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}
