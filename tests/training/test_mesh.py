"""One run on several devices: virtual ones of the CPU, which a process has to ask for before JAX starts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from dreamer_agent.agent import ALONE
from dreamer_agent.errors import ConfigError
from dreamer_agent.training.mesh import Placement, sizes_of
from tests.conftest import small_config

TESTS = Path(__file__).parent / "on_eight_devices.py"
TREE = Path(__file__).parent.parent.parent


def test_on_eight_devices() -> None:
    """Runs the tests of `on_eight_devices.py` in a process that has as many."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", str(TESTS)]
    done = subprocess.run(
        command,
        cwd=TREE,
        env=os.environ | {"XLA_FLAGS": flags, "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


@pytest.mark.parametrize(
    ("asked", "before", "devices"),
    [
        ("runs=8", "", "largest(8)"),
        ("runs=3", "", "largest(3)"),
        ("runs=0", "", "1"),
        ("devices=2", "", "min(2, cores)"),
        ("devices=1", "", "1"),
        ("devices=10_000", "", "cores"),
        ("runs=8", "jax.numpy.ones(1)", "1"),  # too late
        ("runs=8", "jax.config.update('jax_num_cpu_devices', 3)", "3"),
    ],
)
def test_a_cpu_is_divided_as_asked_if_nobody_did_before(asked: str, before: str, devices: str) -> None:
    code = f"""
import os, jax
from dreamer_agent.training.mesh import divide_cpu
cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
largest = lambda runs: max(n for n in range(1, runs + 1) if n <= cores and runs % n == 0)
{before}
divide_cpu({asked})
assert len(jax.devices()) == {devices}, (jax.devices(), cores)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert done.returncode == 0, done.stderr.decode()[-2000:]


def test_one_device_needs_no_mesh() -> None:
    placement = Placement.of(small_config("mesh.data=0"))  # all there are
    assert placement == Placement() and placement.devices == len(jax.devices()) == 1
    tree = {"a": jax.numpy.ones(3)}
    assert placement.whole(tree) is tree and placement.division == ALONE


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (
            ["mesh.data=2"],
            r"mesh\.data=2 times mesh\.fsdp=1 makes 2 devices, but there is 1 \(cpu\): ask for fewer",
        ),
        (["mesh.fsdp=4"], r"makes 4 devices, but there is 1"),
        (["mesh.fsdp=0"], r"mesh\.fsdp=0 were given: give numbers of devices of at least 1"),
        (["mesh.data=-1"], r"mesh\.data=-1 .* of at least 1"),
    ],
)
def test_what_there_is_not_enough_of_is_said(overrides: list[str], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        sizes_of(small_config(*overrides))
