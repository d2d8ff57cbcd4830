"""The parts of a machine that runs beside each other get."""

from __future__ import annotations

import os

import pytest

from dreamer_agent.launch import devices as module
from dreamer_agent.launch.devices import Share, shares, visible_gpus
from dreamer_agent.launch.worker import pin

FRACTION = "XLA_PYTHON_CLIENT_MEM_FRACTION"


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="cores cannot be chosen here")
def test_each_run_has_its_share_of_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "visible_gpus", list)
    cores = sorted(os.sched_getaffinity(0))
    assert [share.cores for share in shares(1)] == [tuple(cores)]
    apart = shares(len(cores))
    assert sorted(core for share in apart for core in share.cores) == cores
    more = shares(2 * len(cores))
    assert len(more) == 2 * len(cores) and all(len(share.cores) == 1 for share in more)
    pin([])
    assert sorted(os.sched_getaffinity(0)) == cores


def test_gpus_are_dealt_in_turn_and_their_memory_is_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "visible_gpus", lambda: ["4", "5"])
    monkeypatch.delenv(FRACTION, raising=False)
    assert [(share.gpu, share.memory) for share in shares(2)] == [("4", 0.75), ("5", 0.75)]
    assert [(share.gpu, share.memory) for share in shares(3)] == [("4", 0.375), ("5", 0.375), ("4", 0.375)]
    given = shares(3)[1].environment()
    assert given["CUDA_VISIBLE_DEVICES"] == "5" and given[FRACTION] == "0.375"
    assert FRACTION not in shares(2)[0].environment()
    monkeypatch.setenv(FRACTION, "0.9")
    assert shares(3)[0].environment()[FRACTION] == "0.9"
    monkeypatch.delenv(FRACTION)
    monkeypatch.setenv("XLA_CLIENT_MEM_FRACTION", "0.9")  # its other name
    assert FRACTION not in shares(3)[0].environment()


def test_without_gpus_no_variable_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv(FRACTION, raising=False)
    assert Share().environment() == dict(os.environ)


@pytest.mark.parametrize(("given", "found"), [("0,2", ["0", "2"]), ("", []), ("-1", []), ("GPU-ab", ["GPU-ab"])])
def test_the_gpus_that_were_chosen_before_are_kept_to(monkeypatch, given: str, found: list[str]) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert visible_gpus() == found
