"""The worker that runs this library: `python -m benchmarks.speed.ours CHECKOUT`.

The library is imported from CHECKOUT, so that two versions of it can be interleaved.
"""

from __future__ import annotations

import sys

from benchmarks.speed.serve import serve


def main() -> None:
    sys.path.insert(0, sys.argv[1])
    from benchmarks.speed.learner import Learner
    from benchmarks.speed.loops import Loop
    from benchmarks.speed.replays import Replay

    learner, loop = Learner(), Loop()
    replay = Replay(learner)
    serve(
        {
            "provenance": learner.provenance,
            "build": learner.build,
            "compile": learner.compile,
            "update": learner.update,
            "peak": learner.peak,
            "matmul": learner.matmul,
            "policy": learner.policy,
            "fill": replay.fill,
            "sample": replay.sample,
            "add": replay.add,
            "open": loop.open,
            "steps": loop.steps,
            "open_population": loop.open_population,
            "population_steps": loop.population_steps,
        }
    )


if __name__ == "__main__":
    main()
