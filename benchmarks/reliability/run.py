"""One life of a run: `python -m benchmarks.reliability.run KIND FOLDER [key=value ...]`; again to resume it."""

from __future__ import annotations

import sys
from pathlib import Path

import dreamer_agent
from benchmarks.reliability.kinds import config_of
from dreamer_agent.errors import DreamerError
from dreamer_agent.interrupt import REQUEUE, requeued


def main() -> None:
    kind, folder, *overrides = sys.argv[1:]
    try:
        with requeued():
            dreamer_agent.train(config_of(kind, *overrides), Path(folder))
    except (KeyboardInterrupt, SystemExit):
        sys.exit(REQUEUE)
    except DreamerError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
