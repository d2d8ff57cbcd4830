"""The speed benchmark: workers that take turns, and what is made of their times. No time itself is asserted."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from benchmarks.speed import __main__ as command
from benchmarks.speed import gpu
from benchmarks.speed.cases import CASES, PROPRIO, SIX, Case, random_batch
from benchmarks.speed.measure import AXES, Bench, along
from benchmarks.speed.report import Results, cells, markdown
from benchmarks.speed.worker import ROOT, Contender, Worker, WorkerError, interleave, ratio, summary

SMALL = (
    "replay.batch_size=2", "replay.batch_length=8", "behaviour.imagination_horizon=3", "precision=float32",
)  # fmt: skip
NANO = Case("nano", ("size/nano",), PROPRIO, SIX, SMALL)

# A peer that takes no time: it notes in a file that it was asked, and answers as it was told.
FAKE = """
import json, sys
from benchmarks.speed.serve import serve
log, ms = sys.argv[1], json.loads(sys.argv[2])

def note(name):
    def answer(**request):
        with open(log, "a") as file:
            file.write(f"{ms[0]:g} {name}\\n")
        print("not an answer")
        if request.get("envs") == 16:
            raise RuntimeError("too many")
        numbers = {"parameters": 7, "flops": 10, "peak_rss": 5, "trace_s": 1.0, "compile_s": 2.0}
        settings = {"dtype": "float32", "replay": {"batch_size": 2, "batch_length": 50}}
        if request.get("overrides") == ["env.id=CartPole-v1", "train.loop=device"]:
            raise ValueError("no such loop")
        return {"ms": ms, "settings": settings, "updates_per_env_step": 0.5, **numbers}
    return answer

names = ("build", "compile", "update", "policy", "peak", "matmul", "provenance", "open", "steps")
names += ("open_population", "population_steps")
serve({name: note(name) for name in names})
"""


def fake(name: str, log: Path, *ms: float) -> Contender:
    return Contender(name, (sys.executable, "-c", FAKE, str(log), json.dumps(ms)))


def test_contenders_take_turns(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with Worker(fake("one", log, 1.0, 3.0)) as one, Worker(fake("two", log, 4.0)) as two:
        times = interleave([one, two], 2, "update")
    assert times == {"one": [[1.0, 3.0]] * 2, "two": [[4.0]] * 2}
    assert log.read_text().split("\n")[:-1] == ["1 update", "4 update"] * 3  # the first turn warms up


def test_ratios_are_those_of_rounds() -> None:
    slow, fast = [[6.0], [8.0], [30.0, 10.0, 20.0]], [[2.0], [4.0], [5.0]]
    assert ratio(slow, fast) == {"median": 3.0, "min": 2.0, "max": 4.0, "rounds": 3}
    assert summary(slow) == {"median": 10.0, "min": 6.0, "n": 5}


def test_a_peer_that_fails_is_told_of_and_the_rest_goes_on(tmp_path: Path) -> None:
    results = Results(tmp_path / "speed.json", "test")
    contenders = [fake("one", tmp_path / "log", 1.0), fake("two", tmp_path / "log", 4.0)]
    Bench(results, 3, 0.0).learner(NANO, contenders, ["update", "policy"])
    written = json.loads((tmp_path / "speed.json").read_text())
    one, two = written["update"]
    assert two["ratio"] == {"median": 4.0, "min": 4.0, "max": 4.0, "rounds": 3} and "ratio" not in one
    assert one["gflops"] == 10 / 1.0 / 1e6 and one["matmul_gflops"] == 10 / 1.0 / 1e6
    (failed,) = written["policy"]
    assert failed["failed"] == "one failed at 'policy': RuntimeError: too many"
    assert cells("policy", failed)[-1] == "failed" and len(markdown("policy", [failed])) == 2
    assert "4.00 (4.00 to 4.00)" in markdown("update", [one, two])[-1]


def test_kinds_of_loops_take_turns(tmp_path: Path) -> None:
    results = Results(tmp_path / "speed.json", "test")
    contenders = [fake("one", tmp_path / "log", 4.0), fake("two", tmp_path / "log", 8.0)]
    Bench(results, 2, 0.0).loop("CartPole-v1", contenders, 10)
    device, host, waiting, other = results.parts["loop"]
    assert device["failed"] == "device failed at 'open': ValueError: no such loop"
    assert host["env_steps_per_s"] == {"median": 250.0, "min": 250.0, "max": 250.0}
    assert host["updates_per_s"] == 125.0 and waiting["contender"] == "host, waiting"
    assert other["contender"] == "host: two" and other["ratio"]["median"] == 0.5


def test_native_environments_act_and_train_in_both_loops(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(Contender, "ours", lambda: fake("ours", tmp_path / "log", 4.0))
    results = Results(tmp_path / "speed.json", "test")
    Bench(results, 2, 0.0).native(10)
    rows = {(row["case"], row["contender"]) for row in results.parts["loop"]}
    modes = [
        f"gymnax:CartPole-v1, {mode}, {envs} envs" for mode in ("acting", "training") for envs in (1, 16, 256)
    ]
    assert rows == {(mode, loop) for mode in modes for loop in ("host", "device")}


def test_processes_side_by_side_count_together(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(Contender, "ours", lambda: fake("ours", tmp_path / "log", 4.0))
    results = Results(tmp_path / "speed.json", "test")
    Bench(results, 2, 0.0).seeds(2, 10)
    one, many = results.parts["loop"]
    assert (one["contender"], many["contender"]) == ("2 seeds as one program", "2 processes")
    assert one["env_steps_per_s"]["median"] == 250.0 and many["env_steps_per_s"]["median"] == 500.0
    assert many["ratio"]["median"] == 2.0


def test_scaling_is_held_against_the_first_point(tmp_path: Path, monkeypatch) -> None:
    times = iter([2.0, 3.0])
    monkeypatch.setattr(Contender, "ours", lambda: fake("ours", tmp_path / "log", next(times)))
    monkeypatch.setitem(AXES, "seeds", [1, 4])
    results = Results(tmp_path / "speed.json", "test")
    Bench(results, 2, 0.0).scaling(NANO, "seeds")
    one, four = results.parts["scaling"]
    assert (one["times_base"], four["times_base"]) == (1.0, 1.5)
    assert (one["us_per_step"], four["us_per_step"]) == (20.0, 7.5)  # of 100 replayed steps for each seed


def test_a_worker_that_dies_or_hangs_says_so() -> None:
    hanging = Contender("hanging", (sys.executable, "-c", "import time; time.sleep(100)"))
    with Worker(hanging) as worker, pytest.raises(WorkerError, match="hanging ended during 'build'"):
        worker.ask("build", limit=0.2)
    dying = Contender("dying", (sys.executable, "-c", "raise SystemExit('no such thing')"))
    with Worker(dying) as worker, pytest.raises(WorkerError, match="no such thing"):
        worker.ask("build")


def test_a_newer_row_replaces_the_old_one(tmp_path: Path) -> None:
    for value in (1, 2):
        results = Results(tmp_path / "speed.json", "test")
        results.add("policy", {"case": "a", "contender": "b", "envs": 1, "x": value}, {})
        results.add("policy", {"case": "a", "contender": "b", "envs": 16, "x": value}, {})
    assert [row["x"] for row in results.parts["policy"]] == [2, 2]


def test_batches_are_the_same_everywhere_and_flags_mostly_false() -> None:
    model, replay = {"deter": 8, "classes": 4, "stoch": 2}, {"batch_size": 16, "batch_length": 64}
    case = dataclasses.replace(CASES["1m-image"], settings={"model": model, "replay": replay})
    batch, again = random_batch(case), random_batch(case)
    assert batch["obs"]["image"].shape == (16, 65, 64, 64, 3) and batch["obs"]["image"].std() > 50
    assert np.array_equal(batch["obs"]["image"], again["obs"]["image"])
    assert 0 < batch["is_last"].mean() < 0.03
    assert np.array_equal(batch["is_first"][:, 1:], batch["is_last"][:, :-1])
    assert not (batch["is_terminal"] & ~batch["is_last"]).any()


def test_points_of_an_axis() -> None:
    base = CASES["classic"]
    assert along(base, "seeds", 4) == (dataclasses.replace(base, name="classic, seeds 4"), 4)
    assert along(base, "size", "1m")[0].presets == ("classic", "size/1m")
    assert along(base, "length", 16)[0].overrides[-1] == "replay.batch_length=16"
    assert along(base, "batch", 8)[0].overrides[-1] == "replay.batch_size=8"


@pytest.mark.parametrize("text", ["dreamerv3", "rainbow=/tmp", "dreamerv3=/no/such/folder"])
def test_a_peer_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(WorkerError, match=r"A peer is written|not there"):
        Contender.parse(text)


def test_the_command_line_writes_what_it_prints(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(Contender, "ours", lambda: fake("ours", tmp_path / "log", 2.0))
    monkeypatch.setitem(CASES, "classic", NANO)
    out = tmp_path / "speed.json"
    command.main(["update", "--cases", "classic", "--rounds", "2", "--seconds", "0", "--out", str(out)])
    (row,) = json.loads(out.read_text())["update"]
    assert row["command"].startswith("python -m benchmarks.speed update --cases classic")
    assert row["update_ms"] == {"median": 2.0, "min": 2.0, "n": 2}
    assert "2 / 2 (2)" in capsys.readouterr().out


def test_our_own_worker_measures_everything() -> None:
    """One nano agent in a real worker: update, policy, replay."""
    with Worker(Contender.ours()) as worker:
        built = worker.ask("build", case=NANO.plain())
        assert built["parameters"] == 100_931 and built["settings"]["replay"]["batch_size"] == 2
        assert worker.ask("compile")["flops"] > 1e7
        assert len(worker.ask("update", least=2)["ms"]) == 2
        assert 1e8 < worker.ask("peak")["peak_rss"] < 1e11
        assert len(worker.ask("matmul")["ms"]) == 3
        assert len(worker.ask("policy", envs=2, least=4)["ms"]) == 4
        assert worker.ask("fill")["bytes"] > 16_384 * (24 + 6 + 1) * 4
        assert len(worker.ask("sample", least=3)["ms"]) == len(worker.ask("add", least=3)["ms"]) == 3
        assert worker.ask("provenance")["packages"]["jax"]


def test_several_seeds_and_several_updates_are_one_program() -> None:
    from benchmarks.speed.flops import count_flops
    from benchmarks.speed.learner import Learner, program

    learner = Learner()
    learner.build(NANO.plain())

    def traced(seeds: int, updates: int) -> jax.stages.Traced:
        init, update, batch = program(learner.agent, learner.case, seeds, updates)
        return jax.jit(update).trace(jax.eval_shape(init), batch)

    one, many = traced(1, 1), traced(3, 2)
    assert count_flops(many.jaxpr) == pytest.approx(6 * count_flops(one.jaxpr), rel=0.01)
    state, (latents, metrics) = many.out_info
    assert state.step.shape == (3,) and latents.deter.shape == (2, 3, 2, 8, 128)
    assert {value.shape for value in jax.tree.leaves(metrics)} == {(2, 3)}


def test_the_accelerators_set_keeps_its_deadline(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(Contender, "ours", lambda: fake("ours", tmp_path / "log", 2.0))
    bench = Bench(Results(tmp_path / "gpu.json", "test"), 1, 0.0)
    process = gpu.Process(NANO, "while", ((2, 8), (1, 1)))
    skipped = gpu.Gpu(bench, gpu.FLAGS, gpu.Deadline(0.0)).run([process])
    assert skipped == [f"nano (while), {program} updates per call" for program in ("2 seeds, 8", "1 seeds, 1")]
    assert gpu.Gpu(bench, gpu.FLAGS, gpu.Deadline(600)).run([process]) == []
    several, one = bench.results.parts["gpu"]
    assert (several["seeds"], several["updates_per_call"], several["ms_per_seed"]) == (2, 8, 1.0)
    assert "WHILE" in several["provenance"]["xla_flags"]
    assert "too many" in one["failed"] and (tmp_path / "log").read_text().count("provenance") == 1


def test_the_accelerators_set_needs_little() -> None:
    """Our worker's learner is imported where only jax, flax, optax, chex and orbax are."""
    program = """
import sys
for name in ("gymnasium", "haiku", "tensorboardX", "matplotlib", "typer", "PIL", "psutil"):
    sys.modules[name] = None
import benchmarks.speed.gpu, benchmarks.speed.learner, benchmarks.speed.loops, benchmarks.speed.replays
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_the_parent_does_not_import_jax() -> None:
    """It would hold the accelerator that its workers need."""
    program = "import sys, benchmarks.speed.__main__; assert 'jax' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
