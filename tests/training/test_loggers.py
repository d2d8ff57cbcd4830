"""Where the rows of a run go: what ships, loggers from outside, and loggers that fail."""

from __future__ import annotations

import importlib.util
import json
import struct
import sys
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dreamer_agent.config import Config, load_config
from dreamer_agent.errors import ConfigError, MissingExtraError
from dreamer_agent.training.loggers import LOGGERS, register_logger
from dreamer_agent.training.metrics import MetricsWriter, check_loggers, newest_metrics, read_metrics
from dreamer_agent.values import to_dict


def with_loggers(*names: str) -> Config:
    return load_config(overrides=[f"train.loggers=[{', '.join(names)}]"])


class Recorder:
    """Keeps what it is told, and fails where it was told to."""

    def __init__(self, folder: Path, config: Config, failing: str = ""):
        self.folder, self.config, self.failing = folder, config, failing
        self.calls: list[tuple] = []

    def note(self, *call: Any) -> None:
        self.calls.append(call)
        if call[0] == self.failing:
            raise ValueError("no\nspace left")

    def write(self, step: int, row: dict[str, float]) -> None:
        self.note("write", step, dict(row))
        row.clear()  # its own copy

    def close(self) -> None:
        self.note("close")


class Curious(Recorder):
    def resume(self, step: int) -> None:
        self.note("resume", step)

    def image(self, step: int, name: str, image: np.ndarray) -> None:
        self.note("image", step, name, image.shape)


@pytest.fixture
def made() -> Iterator[list[Recorder]]:
    """Registers the loggers plain, curious and those that fail; gives the instances that were made."""
    made: list[Recorder] = []

    def plug(name: str, kind: type[Recorder], failing: str = "") -> None:
        def factory(folder: Path, config: Config) -> Recorder:
            made.append(kind(folder, config, failing))
            return made[-1]

        register_logger(name)(factory)

    names = ["plain", "curious", "fails_write", "fails_close", "fails_resume", "fails_image"]
    for name in names:
        plug(name, Recorder if name == "plain" else Curious, name.partition("_")[2])
    yield made
    for name in names:
        LOGGERS.pop(name)


def events(folder: Path) -> list[Any]:
    """The TensorBoard events of a folder in the order of its files, without their checksums."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in sorted(folder.glob("events.*"), key=lambda path: path.stat().st_mtime_ns):
        content, at = path.read_bytes(), 0
        while at < len(content):
            (length,) = struct.unpack_from("<Q", content, at)
            found.append(Event.FromString(content[at + 12 : at + 12 + length]))
            at += 12 + length + 4
    return found


def points(folder: Path) -> list[tuple]:
    return [(e.step, v.tag, v.simple_value) for e in events(folder) for v in e.summary.value]


def test_every_run_has_metrics_and_tensorboard(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path)
    writer.write(5, {"a": np.float32(1.5), "b": float("nan")})
    writer.write(10, {"a": 2})
    writer.image(10, "picture", np.zeros((4, 6, 3), np.uint8))
    writer.close()
    assert read_metrics(tmp_path) == [{"step": 5, "a": 1.5, "b": None}, {"step": 10, "a": 2.0}]
    assert [point[:2] for point in points(tmp_path)] == [(5, "a"), (5, "b"), (10, "a"), (10, "picture")]


def test_a_last_row_that_was_not_written_whole_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}\n{"step')
    assert read_metrics(tmp_path) == [{"step": 1}, {"step": 2}]
    assert read_metrics(tmp_path / "none") == []


def test_no_row_leaves_no_file(tmp_path: Path) -> None:
    MetricsWriter(tmp_path).close()
    assert not list(tmp_path.iterdir())


def test_rows_after_the_checkpoint_are_forgotten(tmp_path: Path) -> None:
    first = MetricsWriter(tmp_path)
    for step in (10, 20, 30):
        first.write(step, {"a": step})
    first.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4')  # what a kill may leave
    second = MetricsWriter(tmp_path, 20)
    second.write(30, {"a": 31})
    second.close()
    assert [row["a"] for row in read_metrics(tmp_path)] == [10, 20, 31]
    starts = [event.step for event in events(tmp_path) if event.HasField("session_log")]
    assert starts == [21]  # TensorBoard hides this step and later ones


def test_nothing_of_an_older_run_is_kept_from_the_start(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 3}\n{"step": 0}\n')
    MetricsWriter(tmp_path).close()
    assert read_metrics(tmp_path) == [{"step": 0}]


def test_a_logger_from_outside_gets_every_row(tmp_path: Path, made: list[Recorder]) -> None:
    config = with_loggers("plain", "curious", "tensorboard")
    writer = MetricsWriter(tmp_path, 7, config)
    writer.write(8, {"a": np.float32(1)})
    writer.image(8, "picture", np.zeros((2, 3, 3), np.uint8))
    writer.close()
    writer.close()
    plain, curious = made
    assert plain.folder == tmp_path and plain.config is config
    assert plain.calls == [("write", 8, {"a": 1.0}), ("close",)]
    assert curious.calls == [("resume", 7), plain.calls[0], ("image", 8, "picture", (2, 3, 3)), ("close",)]
    assert read_metrics(tmp_path) == [{"step": 8, "a": 1.0}]
    assert len([point for point in points(tmp_path) if point[1] == "a"]) == 1  # named again, but written once


@pytest.mark.parametrize(
    ("failing", "calls"),
    [
        ("write", ["resume", "write"]),
        ("close", ["resume", "write", "image", "write", "close"]),
        ("resume", ["resume"]),
        ("image", ["resume", "write", "image"]),
    ],
)
def test_a_logger_that_fails_is_dropped_and_the_others_go_on(
    tmp_path: Path, made: list[Recorder], failing: str, calls: list[str]
) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        writer = MetricsWriter(tmp_path, 0, with_loggers(f"fails_{failing}", "plain"))
        writer.write(1, {"a": 1})
        writer.image(1, "picture", np.zeros((2, 3, 3), np.uint8))
        writer.write(2, {"a": 2})
        writer.close()
    told = [str(warning.message) for warning in caught if warning.category is RuntimeWarning]
    assert told == [
        f"The logger 'fails_{failing}' failed (ValueError: no space left) and is left out from here on; "
        "training goes on."
    ]
    failed, plain = made
    assert [call[0] for call in failed.calls] == calls
    assert [call[0] for call in plain.calls] == ["write", "write", "close"]
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 2]


def test_a_logger_that_does_not_exist_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Unknown logger 'wandbb': known are .*'wandb' is the nearest"):
        MetricsWriter(tmp_path, 0, with_loggers("wandbb"))
    assert not list(tmp_path.iterdir())
    check_loggers(with_loggers("tensorboard", "jsonl"))


def test_a_logger_that_cannot_start_is_one_sentence(tmp_path: Path) -> None:
    @register_logger("closed")
    def closed(folder: Path, config: Config) -> Recorder:
        raise ConnectionError("no\nroute")

    try:
        with pytest.raises(ConfigError, match=r"'closed' cannot start \(ConnectionError: no route\): mend that"):
            MetricsWriter(tmp_path, 0, with_loggers("closed"))
    finally:
        LOGGERS.pop("closed")


def test_a_full_disk_costs_tensorboard_rows_and_nobody_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tensorboardX.record_writer import RecordWriter

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    writer = MetricsWriter(tmp_path, 20)
    writer.write(30, {"a": 1})
    with monkeypatch.context() as patch:
        patch.setattr(RecordWriter, "flush", full)
        with pytest.warns(UserWarning, match="TensorBoard's events cannot be written.*No space left"):
            for step in range(31, 80):
                writer.write(step, {"a": 2, "b": 3})
    writer.write(90, {"a": 4})
    writer.close()
    assert {(30, "a", 1.0), (90, "a", 4.0)} <= set(points(tmp_path))
    assert [event.step for event in events(tmp_path) if event.HasField("session_log")] == [21]
    assert len(read_metrics(tmp_path)) == 51


def test_without_tensorboard_the_rest_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    writer = MetricsWriter(tmp_path)
    writer.write(1, {"a": 1})
    writer.image(1, "picture", np.zeros((2, 3, 3), np.uint8))
    writer.close()
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


class FakeWandB(types.ModuleType):
    """Notes the calls that the logger makes of the module `wandb`."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.calls: list[tuple] = []

    def init(self, **arguments: Any) -> FakeWandB:
        self.calls.append(("init", arguments))
        return self

    def log(self, row: dict, step: int) -> None:
        self.calls.append(("log", dict(row), step))

    def Image(self, image: np.ndarray) -> tuple:
        return ("picture", image.shape)

    def finish(self) -> None:
        self.calls.append(("finish",))


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeWandB:
    module = FakeWandB()
    monkeypatch.setitem(sys.modules, "wandb", module)
    for name in ("WANDB_PROJECT", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    return module


def test_wandb_gets_the_configuration_the_rows_and_the_end(tmp_path: Path, fake: FakeWandB) -> None:
    folder, config = tmp_path / "my run: 1", with_loggers("wandb")
    folder.mkdir()
    writer = MetricsWriter(folder, 0, config)
    writer.write(3, {"loss/reward": 0.5})
    writer.image(3, "dream", np.zeros((4, 5, 3), np.uint8))
    writer.close()
    (_, arguments), *rest = fake.calls
    identity = arguments.pop("id")
    assert identity.startswith("my-run-1-") and len(identity) == len("my-run-1-") + 8
    assert arguments == {
        "project": "dreamer_agent", "dir": str(folder), "name": "my run: 1", "resume": "allow",
        "reinit": "create_new", "config": to_dict(config), "allow_val_change": True,
    }  # fmt: skip
    assert rest == [("log", {"loss/reward": 0.5}, 3), ("log", {"dream": ("picture", (4, 5, 3))}, 3), ("finish",)]


def test_wandb_continues_the_run_of_a_directory_and_of_no_other(tmp_path: Path, fake: FakeWandB) -> None:
    (tmp_path / "a" / "run").mkdir(parents=True)
    (tmp_path / "b" / "run").mkdir(parents=True)
    for name in ("a", "a", "b"):
        MetricsWriter(tmp_path / name / "run", 0, with_loggers("wandb")).close()
    first, again, other = (call[1]["id"] for call in fake.calls if call[0] == "init")
    assert first == again != other


def test_wandbs_own_variables_hold(tmp_path: Path, fake: FakeWandB, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    monkeypatch.setenv("WANDB_DIR", "/elsewhere")
    MetricsWriter(tmp_path, 0, with_loggers("wandb")).close()
    assert fake.calls[0][1]["project"] == "mine" and fake.calls[0][1]["dir"] == "/elsewhere"


def test_wandb_is_not_touched_unless_it_was_chosen(tmp_path: Path, fake: FakeWandB) -> None:
    writer = MetricsWriter(tmp_path, 0, Config())
    writer.write(1, {"a": 1})
    writer.close()
    assert not fake.calls


def test_wandb_that_is_not_installed_names_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    for start in (check_loggers, lambda config: MetricsWriter(tmp_path, 0, config)):
        with pytest.raises(MissingExtraError, match=r"dreamer-agent\[wandb\]"):
            start(with_loggers("wandb"))
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="wandb is not installed")
def test_wandb_itself_writes_a_run_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.delenv("WANDB_DIR", raising=False)
    for resume_step in (0, 10):
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            writer = MetricsWriter(tmp_path, resume_step, with_loggers("wandb"))
            writer.write(resume_step + 10, {"loss/reward": 0.25})
            writer.image(resume_step + 10, "dream", np.zeros((4, 5, 3), np.uint8))
            writer.close()
    runs = sorted(tmp_path.glob("wandb/offline-run-*"))
    (identity,) = {run.name.split("-", 3)[3] for run in runs}
    assert identity == (tmp_path / "wandb_id.txt").read_text().strip()
    assert len(runs) == 2 and all(list(run.glob("*.wandb")) for run in runs)
    assert [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").open()] == [10, 20]


def test_the_newest_rows_are_read_from_the_end(tmp_path: Path) -> None:
    assert newest_metrics(tmp_path) == []
    rows = [json.dumps({"step": step}) for step in range(100)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(["{broken", *rows, '{"step": 1']))
    assert [row["step"] for row in newest_metrics(tmp_path)] == list(range(100))
    end = newest_metrics(tmp_path, size=60)
    assert end and end[-1]["step"] == 99 and len(end) < 6
