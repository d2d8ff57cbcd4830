"""One run in two processes, which talk by the CPU's collectives."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import jax
import numpy as np
import pytest
from typer.testing import CliRunner

from benchmarks.reliability.kill import differences, newest
from dreamer_agent.cli import app
from dreamer_agent.errors import ConfigError, RunDirectoryError
from dreamer_agent.launch.join import join
from dreamer_agent.training.checkpoint import Checkpoint
from dreamer_agent.training.loop import train
from dreamer_agent.training.mesh import Placement
from dreamer_agent.training.metrics import read_metrics
from dreamer_agent.training.processes import lost
from tests.conftest import small_config
from tests.training.on_two_processes import configured, make_agent, updated

TREE = Path(__file__).parent.parent.parent
LONGEST = 300


class Pair:
    """Two processes of `on_two_processes.py`."""

    def __init__(self, what: str, folder: Path, *overrides: str):
        with closing(socket.socket()) as free:
            free.bind(("localhost", 0))
            address = f"localhost:{free.getsockname()[1]}"
        command = [sys.executable, "-m", "tests.training.on_two_processes", address, "2"]
        environment = os.environ | {
            "JAX_COMPILATION_CACHE_DIR": str(jax.config.jax_compilation_cache_dir),  # type: ignore[attr-defined]
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
        }
        self.folder = folder
        folder.parent.mkdir(parents=True, exist_ok=True)
        self.logs = [folder.with_name(f"{folder.name}-{index}.log") for index in range(2)]
        self.processes = [
            subprocess.Popen(
                [*command, str(index), what, str(folder), *overrides],
                cwd=TREE, env=environment, stdout=log.open("w"), stderr=subprocess.STDOUT,
            )
            for index, log in enumerate(self.logs)
        ]  # fmt: skip

    def wait_until(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + LONGEST
        while not condition():
            assert time.monotonic() < end and all(p.poll() is None for p in self.processes), self.said()
            time.sleep(0.01)

    def end(self) -> list[int]:
        """The exit codes."""
        try:
            return [process.wait(LONGEST) for process in self.processes]
        finally:
            for process in self.processes:
                process.kill()

    def said(self) -> str:
        return "\n".join(log.read_text()[-3000:] for log in self.logs)


@pytest.fixture(scope="module")
def left_alone(tmp_path_factory) -> Path:
    """A run that nobody disturbed."""
    pair = Pair("train", tmp_path_factory.mktemp("several") / "run")
    assert pair.end() == [0, 0], pair.said()
    return pair.folder


def test_the_same_batch_gives_the_same_parameters(tmp_path: Path) -> None:
    """Two processes against one device: 1e-6 of the largest number of an array after one update, 1e-3 after five;
    each process gets the latents of its rows."""
    (tmp_path / "out").mkdir()
    pair = Pair("updates", tmp_path / "out")
    expected = updated(make_agent(), Placement(), slice(None))
    assert pair.end() == [0, 0], pair.said()
    for name in ("data", "fsdp"):
        first, second = (np.load(tmp_path / "out" / f"{name}-{index}.npz") for index in range(2))
        for key, value in expected.items():
            if key.startswith("latent/"):
                np.testing.assert_allclose(np.concatenate([first[key], second[key]], 1), value, atol=1e-3)
                continue
            np.testing.assert_array_equal(first[key], second[key])
            tolerance = 1e-6 if key.startswith("1/") else 1e-3
            assert np.abs(first[key] - value).max() <= tolerance * max(np.abs(value).max(), 1e-3), (name, key)


def test_each_process_has_its_part_of_one_run(left_alone: Path) -> None:
    parts = [left_alone, left_alone / "processes" / "1"]
    assert newest(parts[0]) == newest(parts[1]) >= 300
    checkpoints = [Checkpoint(part / "checkpoints" / str(newest(part))) for part in parts]
    assert checkpoints[0].commit["agent"] == checkpoints[1].commit["agent"]  # digests of the learner
    assert checkpoints[0].updates == checkpoints[1].updates > 100
    assert (checkpoints[0].folder / "agent").is_dir() and not (checkpoints[1].folder / "agent").exists()
    loops = [checkpoint.loop() for checkpoint in checkpoints]
    own = [int(loop["more"]["own_steps"]) for loop in loops]
    step, heard = newest(left_alone), loops[0]["more"]["heard"]
    assert sum(own) == int(heard[0])
    assert 0 <= sum(own) - step <= 4  # the count is one step of four environments late
    np.testing.assert_array_equal(heard, loops[1]["more"]["heard"])
    assert loops[0]["driver"]["calls"] > 0 and len(loops[0]["driver"]["length"]) == 2  # half of the environments
    rows = [read_metrics(part) for part in parts]
    keys = [key for key in rows[0][-1] if not key.startswith(("time/", "system/"))]
    assert [[row.get(key) for key in keys] for row in rows[0]] == [
        [row.get(key) for key in keys] for row in rows[1]
    ]
    assert max(row.get("episode/count", 0) for row in rows[0]) > 5
    assert any("evaluation/return_mean" in row for row in rows[0])
    scores = json.loads((left_alone / "evaluation.json").read_text())
    assert [score["episodes"] for score in scores["scores"]] == [3, 3]
    assert "2 cpu devices of 2 processes" in left_alone.with_name("run-0.log").read_text()


def test_a_killed_process_ends_all_and_they_go_on_exactly(left_alone: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    pair = Pair("train", run)
    pair.wait_until(lambda: newest(run) > 100)
    pair.processes[1].kill()
    codes = pair.end()
    assert codes == [75, -signal.SIGKILL], pair.said()
    said = pair.logs[0].read_text()
    assert re.search(
        r"error: Another process of this run has ended .* Start all again with the same commands", said
    )
    pair = Pair("train", run)
    pair.wait_until(lambda: newest(run) > 180)
    pair.processes[0].send_signal(signal.SIGTERM)
    assert pair.end() in ([75, 75], [0, 0]), pair.said()  # if it was about to end anyway
    pair = Pair("train", run)
    assert pair.end() == [0, 0], pair.said()
    for part in (".", "processes/1"):
        assert differences(left_alone / part, run / part) == []


def test_environments_that_break_in_one_process_end_all_after_saving(tmp_path: Path) -> None:
    run = tmp_path / "run"
    faulty = ["env.id=tests.training.on_two_processes:Faulty", "env.kwargs={process: 1, steps: 40}"]
    pair = Pair("train", run, *faulty, "env.max_faults=0", "train.eval_every=0")
    assert pair.end() == [2, 1], pair.said()  # what an environment raises itself is passed on as it is
    first, second = (log.read_text() for log in pair.logs)
    assert "The environments of another process of this run have failed" in first
    assert "the motor is broken" in second
    assert newest(run) == newest(run / "processes" / "1") > 64


def test_another_number_of_processes_is_refused(left_alone: Path) -> None:
    with pytest.raises(RunDirectoryError, match=r"was trained by 2 processes, .* but one process would go on"):
        train(configured("train.steps=400"), left_alone, quiet=True)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("localhost:1",), r"needs --processes .* and --process"),
        (("localhost:1", 2, 2), r"--process 2 of --processes 2 was given: they are counted from 0 to 1"),
        (("auto", 2, None), r"finds --processes and --process itself"),
    ],
)
def test_what_is_missing_to_join_is_said(arguments: tuple, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        join(*arguments)


def test_the_command_says_what_does_not_go_together() -> None:
    for arguments, sentence in (
        (["--process", "1"], r"need --distributed HOST:PORT"),
        (["--distributed", "localhost:1", "--seeds", "2"], "choose one"),
    ):
        result = CliRunner().invoke(app, ["train", "CartPole-v1", *arguments])
        assert isinstance(result.exception, ConfigError) and re.search(sentence, str(result.exception))


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["env.num_envs=3"], r"env\.num_envs=3 cannot be divided among 2 processes: make it a multiple of 2"),
        (["replay.batch_size=5"], r"replay\.batch_size=5 cannot be divided"),
        (["train.loop=device"], r"train\.loop=device is for one process"),
    ],
)
def test_what_cannot_be_divided_is_said(monkeypatch, overrides: list[str], sentence: str) -> None:
    from dreamer_agent.training import several

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(several, "sizes_of", lambda config: (2, 1))
    with pytest.raises(ConfigError, match=sentence):
        several.ProcessTrainer.check_config(small_config("env.num_envs=2", *overrides))


def test_only_errors_of_the_others_count_as_theirs() -> None:
    assert lost(ValueError("UNKNOWN: Gloo all-reduce failed: Connection reset by peer"))
    assert lost(ValueError("could not convert string to float")) is None
    assert lost(ConnectionRefusedError("Connection refused")) is None  # of a simulator, say
