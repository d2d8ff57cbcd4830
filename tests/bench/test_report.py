"""From folders of runs to the report: numbers, pages, gates."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest

from dreamer_agent.bench.benchmark import Benchmark, Task, load_benchmark, with_settings
from dreamer_agent.bench.command import _shown, run_benchmark
from dreamer_agent.bench.finished import finished_of
from dreamer_agent.bench.identity import hash_of, values_of
from dreamer_agent.bench.jobs import Job, jobs_of
from dreamer_agent.bench.page import markdown
from dreamer_agent.bench.reference import FILE, published
from dreamer_agent.bench.report import write_report
from dreamer_agent.bench.results import collect, gate, overlay
from dreamer_agent.bench.text import interval, number, reached, short, spread
from dreamer_agent.errors import ConfigError, RunDirectoryError
from tests.bench.runs import PROVENANCE, finish

CUP = Task(
    "dmc:ball_in_cup_catch", steps=60_000, preset=("dmc_proprio",), low=0, high=1000, gate=300,
    suite="dmc_proprio", published="dmc_ball_in_cup_catch", drawn=("dreamerv3",),
)  # fmt: skip
POLE = Task("CartPole-v1", steps=1000, preset=("classic",), low=22, high=475, goal=475, gate=400)
BENCHMARK = Benchmark("two", (POLE, CUP), "Two tasks", "How it was done.", seeds=2, episodes=4)


@pytest.fixture
def jobs(tmp_path: Path) -> list[Job]:
    out = jobs_of(BENCHMARK, tmp_path)
    finish(out[0], [20, 100, 500, 500], 480, 490)
    finish(out[1], [0, 200, 400, 600], 500)
    finish(out[2], [20, 20, 20, 20], 30)
    finish(out[3], [100, 300, 500, 700], 700)
    return out


def collected(jobs: list[Job]) -> dict:
    return collect(BENCHMARK, *finished_of(jobs))


def test_numbers_of_runs(jobs: list[Job]) -> None:
    pole, cup = collected(jobs)["tasks"]
    ours = pole["methods"]["dreamer"]
    assert ours["score"] == [255, 30, 480]
    first = ours["seeds"][0]
    assert (first["score"], first["score_mode"], first["last"], first["env_steps"]) == (480, 490, 500, 1000)
    assert first["frames_to_threshold"] == 1000  # 384.4 over the last two groups
    assert ours["seeds"][1]["frames_to_threshold"] is None and ours["frames_to_threshold"] == (None, 1000, None)
    assert first["minutes"] == pytest.approx(1000 / 50 / 60)
    assert ours["normalised"] == pytest.approx([458 / 453, 8 / 453])
    assert cup["frames_per_step"] == 2 and cup["methods"]["dreamer"]["normalised"] == [0.5, 0.7]


def test_published_curves_stand_beside_ours_at_the_same_frames(jobs: list[Job]) -> None:
    cup = collected(jobs)["tasks"][1]
    rows = {one["method"]: one for one in cup["beside"]["published"]}
    dreamer = rows["dreamerv3"]
    assert dreamer["bins"] and dreamer["budget"] == 500_000 and dreamer["final"] == pytest.approx(960, abs=1)
    # 60,000 steps are 120,000 frames: two tenths of 50,000. Ours were logged at 30, 60, 90 and 120 thousand.
    assert [tenth["frames"] for tenth in dreamer["tenths"]] == [[0, 50_000], [50_000, 100_000]]
    assert [tenth["ours"] for tenth in dreamer["tenths"]] == [[0, 100], [300, 400]]
    assert dreamer["tenths"][1]["published"] == pytest.approx(740, abs=1)
    points = rows["tdmpc2"]
    assert not points["bins"] and points["tenths"][1]["frames"] == [75_000, 100_000]
    assert points["tenths"][1]["ours"] == [400, 500]


def test_unfinished_runs_are_named_and_left_out(jobs: list[Job]) -> None:
    (jobs[3].folder / "evaluation.json").unlink()
    short_of = json.loads((jobs[2].folder / "evaluation.json").read_text()) | {"env_steps": 999}
    (jobs[2].folder / "evaluation.json").write_text(json.dumps(short_of))
    content = collected(jobs)
    assert [(one["task"], one["seed"]) for one in content["missing"]] == [(POLE.env, 1), (CUP.env, 1)]
    assert {one["why"] for one in content["missing"]} == {"not finished"}
    assert [len(task["methods"]["dreamer"]["seeds"]) for task in content["tasks"]] == [1, 1]


@pytest.mark.parametrize("text", ["{damaged", "{}", "null", '{"env_steps": 60000}'])
def test_damaged_scores_are_named_and_left_out(jobs: list[Job], tmp_path: Path, text: str) -> None:
    (jobs[3].folder / "evaluation.json").write_text(text)
    content = collected(jobs)
    assert [(one["task"], one["seed"]) for one in content["missing"]] == [(CUP.env, 1)]
    assert content["missing"][0]["why"].startswith("its folder has a damaged evaluation.json (")
    assert str(tmp_path) not in content["missing"][0]["why"]
    assert [len(task["methods"]["dreamer"]["seeds"]) for task in content["tasks"]] == [2, 1]


def test_a_damaged_baseline_is_named_and_left_out(tmp_path: Path) -> None:
    first, second = jobs_of(Benchmark("b", (POLE,), methods=("ppo",), seeds=2), tmp_path)
    finish(first, [20, 500], 500)
    finish(second, [20, 500], 500)
    (second.folder / "settings.json").write_text("null")
    found, (missing,) = finished_of([first, second])
    assert [one.key for one in found] == [(POLE.env, "ppo", 0)]
    assert missing["why"] == "its folder has a damaged settings.json: delete that folder, or give another."


def test_curves_are_written_as_the_field_overlays_them(jobs: list[Job]) -> None:
    first, second, *_ = overlay(finished_of(jobs)[0])
    assert first == {
        "task": "CartPole-v1", "method": "dreamer_agent", "seed": "0", "xs": [250, 500, 750, 1000],
        "ys": [20, 100, 500, 500],
    }  # fmt: skip
    assert second["task"] == "dmc_ball_in_cup_catch" and second["xs"][-1] == 120_000


def test_the_pages(jobs: list[Job], tmp_path: Path) -> None:
    folder = tmp_path / "report"
    content = write_report(BENCHMARK, jobs, folder, "dreamer-agent bench two")
    assert json.loads((folder / "report.json").read_text()) == json.loads(json.dumps(content))
    page = (folder / "report.md").read_text()
    assert (
        "# Two tasks" in page
        and "Changed here" not in page
        and "How it was done." in page
        and "`dreamer-agent bench two`" in page
    )
    assert "| CartPole-v1 | dreamer_agent | 1,000 | 2 | 255.0 (30.0 to 480.0) |" in page
    assert "| dmc:ball_in_cup_catch | dreamer_agent | 60,000 (120,000 frames) | 2 |" in page
    assert "| method | seeds | 0 to 50K frames | 50K to 100K frames |" in page
    assert "2 runs" not in page and "4 runs: cpu (cpu, 1 core for each)" in page and "`0123456789ab`" in page
    whole = (folder / "report.html").read_text()
    assert whole.count("data:image/png;base64,") == 2 and "<table>" in whole and 'src="curves.png"' not in whole


def test_methods_side_by_side(tmp_path: Path) -> None:
    benchmark = Benchmark("beside", (POLE,), methods=("dreamer", "ppo"), seeds=1)
    ours, theirs = jobs_of(benchmark, tmp_path)
    finish(ours, [500, 500, 500, 500], 500)
    finish(theirs, [20, 20, 500, 500], 500)
    write_report(benchmark, [ours, theirs], tmp_path / "report", "command")
    page = (tmp_path / "report" / "report.md").read_text()
    assert "| CartPole-v1 | 384.4 | 500 | 1,000 | 0.5 |" in page
    finish(theirs, [20, 20, 20, 20], 20)
    write_report(benchmark, [ours, theirs], tmp_path / "report", "command")
    assert (
        "| CartPole-v1 | 384.4 | 500 | never (0 of 1) | < 0.5 |"
        in (tmp_path / "report" / "report.md").read_text()
    )


def test_the_gate(jobs: list[Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert gate(BENCHMARK.tasks, *finished_of(jobs)) == [
        ("CartPole-v1", 400, 255, False), ("dmc:ball_in_cup_catch", 300, 600, True),
    ]  # fmt: skip
    monkeypatch.setattr("sys.argv", ["dreamer-agent", "bench", "two"])
    monkeypatch.setattr("dreamer_agent.bench.command.provenance", lambda: PROVENANCE)
    run = dict(folder=tmp_path, only_report=True, gated=True)
    assert run_benchmark(BENCHMARK, **run) == 1
    assert run_benchmark(BENCHMARK, **run, tasks=["dmc:ball_in_cup_catch"]) == 0
    assert run_benchmark(BENCHMARK, tmp_path, only_report=True) == 0
    with pytest.raises(RunDirectoryError, match="no run of the benchmark is finished"):
        run_benchmark(BENCHMARK, tmp_path / "elsewhere", only_report=True)
    assert not (tmp_path / "elsewhere").exists()
    free = Benchmark("free", (Task("CartPole-v1", 1000, ("classic",)),))
    with pytest.raises(ConfigError, match="has no gates"):
        run_benchmark(free, tmp_path / "untouched", gated=True)
    assert not (tmp_path / "untouched").exists()


def test_a_gate_needs_all_runs(jobs: list[Job]) -> None:
    (jobs[3].folder / "evaluation.json").unlink()
    assert gate(BENCHMARK.tasks, *finished_of(jobs))[1] == ("dmc:ball_in_cup_catch", 300, 500, False)
    assert math.isnan(gate(BENCHMARK.tasks, [], [])[0][2]) and not gate(BENCHMARK.tasks, [], [])[0][3]


def gated(benchmark: Benchmark, folder: Path, report: Path, seeds: list[int]) -> int:
    return run_benchmark(benchmark, folder, only_report=True, gated=True, report=report, seeds=seeds)


def test_a_gate_judges_the_runs_of_its_call_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["dreamer-agent", "bench", "pole"])
    monkeypatch.setattr("dreamer_agent.bench.command.provenance", lambda: PROVENANCE)
    benchmark, report = Benchmark("pole", (POLE,), episodes=4), tmp_path / "report"
    good = jobs_of(benchmark, tmp_path / "good", [0, 1])
    for job in good:
        finish(job, [500, 500], 500)
    assert gated(benchmark, tmp_path / "good", report, [0, 1]) == 0
    (bad,) = jobs_of(benchmark, tmp_path / "bad", [2])
    finish(bad, [10, 10], 10)
    assert gated(benchmark, tmp_path / "bad", report, [2]) == 1  # whatever the records beside it were worth
    unfit = with_settings(benchmark, overrides=["replay.ratio=8"])
    (other,) = jobs_of(unfit, tmp_path / "other", [9])
    finish(other, [10, 10], 10)
    write_report(unfit, [other], report, "a run of other settings, which leaves its record")
    assert gated(benchmark, tmp_path / "good", report, [0, 1]) == 0


def test_a_gate_takes_no_run_of_other_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dreamer_agent.bench.command.provenance", lambda: PROVENANCE | {"commit": "new"})
    benchmark = Benchmark("pole", (POLE,), episodes=4)
    (job,) = jobs_of(benchmark, tmp_path, [0])
    finish(job, [500, 500], 500)
    with pytest.raises(RunDirectoryError, match=r"of commit 0123456789ab, but .* new: give a new --out"):
        gated(benchmark, tmp_path, tmp_path / "report", [0])
    later = PROVENANCE | {"commit": "new", "later": [PROVENANCE | {"commit": "between"}]}
    (job.folder / "provenance.json").write_text(json.dumps(later))
    with pytest.raises(RunDirectoryError, match="commit between"):
        gated(benchmark, tmp_path, tmp_path / "report", [0])


def test_what_the_definition_asks_for_and_nobody_ran_is_named(jobs: list[Job], tmp_path: Path) -> None:
    write_report(BENCHMARK, jobs, tmp_path / "whole", "command")
    page = (tmp_path / "whole" / "report.md").read_text()
    assert "Not run yet" not in page and "Fewer seeds" not in page and "Scored over" not in page
    asked = dataclasses.replace(BENCHMARK, methods=("dreamer", "ppo"), episodes=100)
    write_report(
        asked, jobs_of(asked.select([POLE.env], ["dreamer"]), tmp_path, [0]), tmp_path / "part", "command"
    )
    page = (tmp_path / "part" / "report.md").read_text()
    others = "CartPole-v1 (ppo), dmc:ball_in_cup_catch (dreamer_agent, ppo)"
    assert f"**Not run yet.** {others}." in page
    assert "**Fewer seeds than the 2 asked for.** 1 of CartPole-v1 (dreamer_agent)." in page
    assert "**Scored over 4 episodes, not 100**: 1 of 1 runs." in page
    free = dataclasses.replace(asked, defined=False)  # of ids, with whatever was asked for
    assert not write_report(free, jobs[:1], tmp_path / "free", "command")["not_run"]


def test_code_and_machines_that_went_on_with_a_run_are_named(jobs: list[Job], tmp_path: Path) -> None:
    later = PROVENANCE | {"commit": "feedbeef", "device": "H100", "from_env_step": 500}
    (jobs[0].folder / "provenance.json").write_text(json.dumps(PROVENANCE | {"later": [later]}))
    write_report(BENCHMARK, jobs, tmp_path / "report", "command")
    page = (tmp_path / "report" / "report.md").read_text()
    assert "`0123456789ab` → `feedbeef`" in page
    assert "- 4 runs: cpu (cpu, 1 core for each)" in page and "- 1 run: cpu (H100, 1 core for each)" in page


def test_budgets_and_tasks_of_methods_are_told_where_they_are_averaged(tmp_path: Path) -> None:
    task = dataclasses.replace(POLE, budgets={"ppo": 5000})
    benchmark = Benchmark("beside", (task, CUP), methods=("dreamer", "ppo"), seeds=1)
    jobs = jobs_of(benchmark, tmp_path)[:3]
    for job in jobs:
        finish(job, [20, 500], 500)
    write_report(benchmark, jobs, tmp_path / "report", "command")
    page = (tmp_path / "report" / "report.md").read_text()
    assert "| dreamer_agent | 2 | 1K to 120K |" in page and "| ppo | 1 | 5K |" in page
    assert "ppo is without dmc:ball_in_cup_catch." in page


def test_runs_of_other_settings_are_left_out_and_told(jobs: list[Job], tmp_path: Path) -> None:
    other = with_settings(BENCHMARK, overrides=["replay.ratio=8"])
    found, missing = finished_of(jobs_of(other, tmp_path))
    assert not found and "replay.ratio=128.0, but replay.ratio=8.0 is asked for" in missing[0]["why"]
    assert "give another --out" in missing[0]["why"] and "--allow" not in missing[0]["why"]
    assert str(tmp_path) not in missing[0]["why"]
    shorter = with_settings(BENCHMARK.select([POLE.env]), steps=500)
    assert (
        "a run of 1,000 env steps, but 500 are asked for" in finished_of(jobs_of(shorter, tmp_path))[1][0]["why"]
    )
    longer = with_settings(BENCHMARK.select([POLE.env]), steps=2000)
    assert {one["why"] for one in finished_of(jobs_of(longer, tmp_path))[1]} == {"not finished"}


def test_baselines_of_other_settings_are_left_out_too(tmp_path: Path) -> None:
    benchmark = Benchmark("beside", (POLE,), methods=("ppo",), seeds=1)
    (job,) = jobs_of(benchmark, tmp_path)
    finish(job, [20, 20, 500, 500], 500)
    assert len(finished_of([job])[0]) == 1
    task = dataclasses.replace(POLE, budgets={"ppo": 500})
    (changed,) = jobs_of(dataclasses.replace(benchmark, tasks=(task,)), tmp_path)
    assert "steps=1000, but steps=500" in finished_of([changed])[1][0]["why"]


def test_tasks_that_share_a_published_one_keep_their_own_curves(tmp_path: Path, monkeypatch) -> None:
    same = [Task(id, 1000, ("classic",), suite="gym_classic", published="CartPole-v1") for id in ("A-v1", "B-v1")]
    benchmark = Benchmark("same", tuple(same), seeds=1)
    jobs = jobs_of(benchmark, tmp_path)
    finish(jobs[0], [1.0, 2.0], 2.0)
    finish(jobs[1], [3.0, 4.0], 4.0)
    drawn = []
    monkeypatch.setattr(
        "dreamer_agent.plots.benchmarks.draw_benchmark", lambda panels, path: drawn.extend(panels)
    )
    monkeypatch.setattr("dreamer_agent.bench.report.as_html", lambda *_: "")
    write_report(benchmark, jobs, tmp_path / "report", "command")
    values = [[curve[1].tolist() for curve in panel.groups["dreamer_agent"]] for panel in drawn]
    assert values == [[[1.0, 2.0]], [[3.0, 4.0]]]


def test_the_legend_tells_published_evaluations_from_training_episodes(
    jobs: list[Job], tmp_path, monkeypatch
) -> None:
    drawn = []
    monkeypatch.setattr(
        "dreamer_agent.plots.benchmarks.draw_benchmark", lambda panels, path: drawn.extend(panels)
    )
    monkeypatch.setattr("dreamer_agent.bench.report.as_html", lambda *_: "")
    cup = dataclasses.replace(CUP, drawn=("dreamerv3", "tdmpc2"))
    write_report(dataclasses.replace(BENCHMARK, tasks=(POLE, cup)), jobs, tmp_path / "report", "command")
    assert set(drawn[1].published) == {"dreamerv3, 500K", "tdmpc2, 500K (evaluation)"}


def test_paths_of_this_machine_do_not_enter_the_report() -> None:
    words = [
        "bench",
        "/home/me/mine.yaml",
        "--preset",
        "~/p.yaml",
        "init_from=/home/me/w",
        "--out",
        "/x",
        "a/b=c",
    ]
    assert _shown(words) == ["bench", "mine.yaml", "--preset", "p.yaml", "init_from=w", "a/b=c"]


def test_the_hash_of_a_configuration_is_that_of_what_is_learned() -> None:
    def hashed(task: Task) -> str:
        return hash_of(values_of(task))

    same = Task(POLE.env, POLE.steps, POLE.preset, note="another note", low=0, high=1)
    assert hashed(same) == hashed(POLE)
    assert hashed(Task(POLE.env, POLE.steps, POLE.preset, size="1m")) != hashed(POLE)
    assert hashed(Task(POLE.env, POLE.steps + 1, POLE.preset)) != hashed(POLE)


def test_the_reference_data() -> None:
    (dreamer,) = [one for one in published(["atari100k"], "atari_pong") if one.method == "dreamerv3"]
    assert dreamer.budget == 400_000 and len(dreamer.tenths()) == 10 and dreamer.license.startswith("MIT")
    assert dreamer.tenths()[0][:2] == (0, 40_000)
    text = FILE.read_text()
    assert all(row.count(",") > 15 for row in text.splitlines())
    (reward,) = [one for one in published(["crafter"], "crafter_reward") if one.method == "dreamerv3"]
    assert reward.metric == "return" and reward.mean == 11.7 and reward.tenths() == []


def test_published_numbers_that_are_no_returns_stand_beside_ours(tmp_path: Path) -> None:
    crafter = load_benchmark(["crafter"])
    (job,) = jobs_of(with_settings(crafter, steps=1000, episodes=4), tmp_path, [0])
    name = "Crafter score over training, %"
    finish(job, [1.0, 2.0], 2.0)
    (run,) = finished_of([job])[0]
    run = dataclasses.replace(run, facts=run.facts | {"numbers": {name: 1.25}})
    content = collect(crafter, [run])
    page = markdown({**content, "not_run": [], "command": "command"})
    assert f"| {name} | dreamer_agent | 1.25 | 1K | this report |" in page
    assert f"| {name} | dreamerv3 | 14.5 ± 1.6 | 1M | danijar/crafter README scoreboard |" in page
    assert f"| {name} | human | 50.5 ± 6.8 | - |" in page


def test_numbers_as_text() -> None:
    assert (
        spread([3.0, 1.0, 2.0]) == "2 (1 to 3)" and spread([None]) == "-" and spread([1.0, 2.0]) == "1.5 (1 to 2)"
    )
    assert number(1234.5) == "1,234" and number(12.34) == "12.3" and number(0.1234) == "0.123"
    assert short(1_500_000) == "1.5M" and short(50_000) == "50K" and short(10) == "10"
    assert interval(0.5, None, None) == "0.50" and interval(0.5, 0.25, 0.75) == "0.50 (0.25 to 0.75)"
    task = {"threshold": 1}
    assert reached(task, [10, None, 30]) == "30 (10 to never; 2 of 3)"
    assert reached(task, [10, None]) == "> budget (10 to never; 1 of 2)"
    assert reached(task, [10.0]) == "10" and reached({"threshold": None}, [1]) == "-"


def test_what_is_left_out_is_named_once(jobs: list[Job], tmp_path: Path) -> None:
    for job in jobs[1:]:
        (job.folder / "evaluation.json").unlink()
    write_report(BENCHMARK, jobs, tmp_path / "report", "command")
    page = (tmp_path / "report" / "report.md").read_text()
    left_out = "**Left out.** Not finished: dmc:ball_in_cup_catch dreamer seeds 0, 1; CartPole-v1 dreamer seed 1."
    assert left_out in page


def test_what_was_changed_is_said(jobs: list[Job], tmp_path: Path) -> None:
    changed = with_settings(BENCHMARK.select([CUP.env]), size="1m")
    job, _ = jobs_of(changed, tmp_path / "changed")
    finish(job, [1.0, 2.0], 2.0)
    write_report(changed, [job], tmp_path / "report", "command")
    page = (tmp_path / "report" / "report.md").read_text()
    assert "**Changed here: size 1m.**" in page and "dmc_proprio, size 1m" in page
    both = with_settings(BENCHMARK, steps=900, overrides=["replay.ratio=8"])
    assert both.changed == ("900 env steps", "replay.ratio=8")
