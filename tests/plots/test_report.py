"""`dream --report`: the table, the numbers and the picture of a shipped agent."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from dreamer_agent import api, cli
from dreamer_agent.errors import ConfigError
from dreamer_agent.plots.report_command import parse_horizons


def command(run: str, monkeypatch: pytest.MonkeyPatch, folder: Path) -> tuple[str, dict]:
    """The report of a shipped agent on few steps: what was printed, and the numbers."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(api.reports, "ROWS", 60)
    monkeypatch.setenv("COLUMNS", "200")
    arguments = ["dream", run, "--report", "--windows", "12", "--horizons", "10,1,5", "--observed", "3"]
    result = CliRunner().invoke(cli.app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    out = folder / "runs" / run.replace(":", "-") / "dream"
    picture = np.asarray(Image.open(out / "report.png").convert("RGB"))
    assert min(picture.shape[:2]) > 300 and len(np.unique(picture)) > 10
    return result.output, json.loads((out / "report.json").read_text())


def test_the_report_of_a_vector_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said, numbers = command("pretrained:cartpole", monkeypatch, tmp_path)
    assert "standardised error of" in said and "h = 10" in said and "report.png" in said
    assert numbers["env"] == "CartPole-v1" and numbers["horizons"] == [1, 5, 10] and numbers["observed"] == 3
    assert numbers["windows"][0] == 12 and len(numbers["quantities"]["reward"]["lines"]["model"]) == 3
    (error,) = (q["lines"] for name, q in numbers["quantities"].items() if name.startswith("error/"))
    assert set(error) == {"model", "reconstruction", "persistence", "linear probe", "MLP probe"}
    first = {name: line[0]["value"] for name, line in error.items()}
    assert first["linear probe"] < first["persistence"] < 1 and first["model"] < 1
    assert numbers["quantities"]["termination"]["lines"]["model"] == [None] * 3  # it balances all the time


def test_the_report_of_an_image_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("dm_pix")
    said, numbers = command("pretrained:catch", monkeypatch, tmp_path)
    assert "no probes of images: image" in said and "PSNR" in said
    lines = {name: q["lines"] for name, q in numbers["quantities"].items()}
    assert lines["psnr/image"]["model"][0]["value"] > lines["psnr/image"]["persistence"][0]["value"]
    assert lines["ssim/image"]["model"][0]["value"] > 0.8
    assert set(lines["error/image"]) == {"model", "reconstruction", "persistence"}


def test_horizons_are_whole_numbers(tmp_path: Path) -> None:
    assert parse_horizons("1,20, 5") == [1, 20, 5]
    with pytest.raises(ConfigError, match="whole numbers with commas"):
        parse_horizons("1;5")
    with pytest.raises(ConfigError, match="all 1 or more"):
        api.dream_report("pretrained:cartpole", windows=1, horizons=(0, 5))
