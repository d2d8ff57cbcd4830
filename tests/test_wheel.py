"""The wheel is complete: built, installed outside the checkout with its presets, and trained from."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import TEST_SIZE

ROOT = Path(__file__).parent.parent


def test_the_wheel_trains_outside_the_checkout(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True, text=True, timeout=300)
    (wheel,) = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--target", str(site), str(wheel)]
    subprocess.run(install, check=True, capture_output=True, text=True, timeout=300)
    assert (site / "dreamer_agent" / "configs" / "classic.yaml").is_file()
    assert (site / "dreamer_agent" / "pretrained" / "catch" / "weights.npz").is_file()
    train = [
        sys.executable, "-m", "dreamer_agent", "train", "CartPole-v1", "--preset", "classic", *TEST_SIZE,
        "train.steps=100", "replay.prefill=64", "replay.ratio=16", "train.eval_episodes=2", "env.num_envs=2",
    ]  # fmt: skip
    elsewhere = {**os.environ, "PYTHONPATH": str(site)}
    show = "import dreamer_agent; print(dreamer_agent.__file__)"
    found = subprocess.run(
        [sys.executable, "-c", show], cwd=tmp_path, env=elsewhere, capture_output=True, text=True
    )
    assert found.stdout.startswith(str(site))
    result = subprocess.run(train, cwd=tmp_path, env=elsewhere, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "runs" / "CartPole-v1-0" / "learning_curve.png").is_file()
