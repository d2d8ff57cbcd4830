"""How fast? Results go to a JSON file row by row, and to the screen as tables.

    python -m benchmarks.speed update policy replay --cases 1m-proprio
    python -m benchmarks.speed update policy --peer dreamerv3=/path/to/checkout --peer-python /path/to/python
    python -m benchmarks.speed update --peer dreamer_agent=/path/to/another/version
    python -m benchmarks.speed loop scaling
    python -m benchmarks.speed gpu --rounds 3 --seconds 1 --flags no-graphs="--xla_gpu_enable_command_buffer="

A peer is timed beside ours in turns, A B A B ..., and reported as the median of the ratios of the rounds.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from benchmarks.speed import gpu
from benchmarks.speed.cases import CASES
from benchmarks.speed.measure import AXES, LOOPS, NATIVE_ENVS, Bench
from benchmarks.speed.report import Results, show
from benchmarks.speed.worker import Contender, WorkerError

RESULTS = Path(__file__).parent.parent / "results"
LEARNER, PARTS = ("update", "policy", "replay"), (
    "update", "policy", "replay", "loop", "native", "seeds", "scaling", "gpu",
)  # fmt: skip

SHOWN = {"native": "loop", "seeds": "loop"}  # the table that holds their rows


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "benchmarks.speed", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="+", choices=PARTS)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), help="of the learner's parts")
    parser.add_argument("--loops", nargs="+", choices=LOOPS, default=list(LOOPS))
    parser.add_argument("--axes", nargs="+", choices=AXES, default=list(AXES), help="of the scaling")
    parser.add_argument("--base", choices=CASES, default="classic", help="case that is scaled")
    parser.add_argument("--rounds", type=int, default=5, help="turns of every contender")
    parser.add_argument("--seconds", type=float, default=2.0, help="of one turn, at least")
    parser.add_argument("--steps", type=int, default=1000, help="env steps in one turn of a loop")
    parser.add_argument("--envs", type=int, nargs="+", default=NATIVE_ENVS, help="copies in the part native")
    parser.add_argument("--seeds", type=int, default=8, help="of the part of that name")
    parser.add_argument("--peer", action="append", default=[], metavar="KIND=CHECKOUT")
    parser.add_argument("--peer-python", default=sys.executable, help="interpreter of the peers")
    parser.add_argument("--limit", type=float, default=540.0, help="seconds for the gpu part")
    parser.add_argument("--only", help="gpu: cases with this in their name")
    parser.add_argument("--flags", action="append", default=[], metavar="NAME=XLA_FLAGS", help="gpu: more flags")
    parser.add_argument("--out", type=Path, default=RESULTS / "speed.json")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    args = parse(arguments)
    words = sys.argv[1:] if arguments is None else arguments
    bench = Bench(Results(args.out, anonymous(words)), args.rounds, args.seconds)
    try:
        contenders = [Contender.ours(), *(Contender.parse(text, args.peer_python) for text in args.peer)]
        measure(bench, args, contenders)
    except WorkerError as error:
        sys.exit(str(error))
    finally:
        for part in dict.fromkeys(SHOWN.get(part, part) for part in args.parts):
            show(part, bench.results.parts.get(part, []))
    print(f"written to {args.out}")


def anonymous(words: list[str]) -> str:
    """The command without the paths of this machine, as it is kept with the results."""
    hidden = [re.sub(r"^(\w+=)?\S*/\S*$", r"\1PATH", word) for word in words]
    return " ".join(["python -m benchmarks.speed", *hidden])


def measure(bench: Bench, args: argparse.Namespace, contenders: list[Contender]) -> None:
    """Everything that the command line asks for."""
    parts = [part for part in LEARNER if part in args.parts]
    for name in args.cases if parts else ():
        bench.learner(CASES[name], contenders, parts)
    for name in args.loops if "loop" in args.parts else ():
        bench.loop(name, [one for one in contenders if one.is_ours], args.steps)
    if "native" in args.parts:
        bench.native(args.steps, args.envs)
    if "seeds" in args.parts:
        bench.seeds(args.seeds, args.steps)
    for axis in args.axes if "scaling" in args.parts else ():
        bench.scaling(CASES[args.base], axis)
    if "gpu" in args.parts:
        flags = gpu.FLAGS | dict(text.split("=", 1) for text in args.flags)
        skipped = gpu.Gpu(bench, flags, gpu.Deadline(args.limit)).run(gpu.chosen(args.only, flags))
        print("\n".join(f"no time left for {name}" for name in skipped))


if __name__ == "__main__":
    main()
