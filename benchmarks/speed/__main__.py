"""The command line: `python -m benchmarks.speed PART --peer dreamerv3=/path/to/checkout`."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys

from benchmarks.speed.cases import CASES
from benchmarks.speed.worker import Contender, Worker, WorkerError, interleave, ratio, summary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of one turn, at least")
    parser.add_argument("--peer", action="append", default=[], metavar="KIND=CHECKOUT")
    parser.add_argument("--peer-python", default=sys.executable)
    args = parser.parse_args()
    contenders = [Contender.ours(), *(Contender.parse(text, args.peer_python) for text in args.peer)]
    for name in args.cases:
        case = CASES[name].plain()
        with contextlib.ExitStack() as stack:
            workers, row = [], {"case": name}
            for contender in contenders:
                worker = stack.enter_context(Worker(contender))
                try:
                    built = worker.ask("build", case=case)
                    case["settings"] = built.pop("settings", case["settings"])
                    row[worker.name] = built | worker.ask("compile")
                    workers.append(worker)
                except WorkerError as error:
                    print(error)
            times = interleave(workers, args.rounds, "update", seconds=args.seconds)
            for worker in workers:
                row[worker.name]["update_ms"] = summary(times[worker.name])
                row[worker.name] |= worker.ask("peak")
                row[worker.name]["ratio"] = ratio(times[worker.name], times[workers[0].name])
        print(json.dumps(row, indent=1))


if __name__ == "__main__":
    main()
