"""One life of a run: `python -m benchmarks.reliability.run KIND FOLDER [key=value ...]`; again to resume it."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.reliability.kinds import config_of


def main() -> None:
    import dreamer_agent

    kind, folder, *overrides = sys.argv[1:]
    dreamer_agent.train(config_of(kind, *overrides), Path(folder))


if __name__ == "__main__":
    main()
