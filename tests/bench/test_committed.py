"""The reports that are committed say what their records hold."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dreamer_agent.bench.identity import hash_of

REPORTS = Path(__file__).parents[2] / "benchmarks" / "reports"
FOLDERS = sorted(path.parent for path in REPORTS.glob("*/report.json"))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_page_was_written_from_the_records_beside_it(folder: Path) -> None:
    content, page = json.loads((folder / "report.json").read_text()), (folder / "report.md").read_text()
    told = {
        (task["env"], method, seed["seed"]): seed
        for task in content["tasks"]
        for method, one in task["methods"].items()
        for seed in one["seeds"]
    }
    records = [json.loads(path.read_text()) for path in sorted((folder / "records").glob("*/*.json"))]
    assert {(one["task"], one["method"], one["seed"]) for one in records} == set(told)
    for one in records:
        seed, facts = told[one["task"], one["method"], one["seed"]], one["facts"]
        assert seed["config_hash"] == hash_of(facts["values"]) and seed["config_hash"] in page
        for key in ("score", "score_mode", "env_steps", "updates", "episodes", "minutes", "provenance"):
            assert seed[key] == facts[key]
    assert f"`{content['command']}`" in page


def test_there_are_reports() -> None:
    assert {folder.name for folder in FOLDERS} >= {"classic", "sample_efficiency", "dmc_proprio", "atari100k"}
