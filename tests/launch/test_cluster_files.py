"""The files for clusters in `experiments/cluster`, as far as they can be looked at without one."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path
from typing import Any

import typer
import yaml

from dreamer_agent.cli import app
from dreamer_agent.interrupt import REQUEUE

FILES = Path(__file__).parent.parent.parent / "experiments" / "cluster"


def parsed(arguments: list[str]) -> dict[str, Any]:
    """What `dreamer-agent train` makes of `arguments`; raises for an option that it does not have."""
    command = typer.main.get_command(app).commands["train"]  # type: ignore[attr-defined]
    return command.make_context("train", list(arguments)).params


def test_pods_are_told_who_they_are() -> None:
    service, job = yaml.safe_load_all((FILES / "kubernetes.yaml").read_text())
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    [container] = pod["containers"]
    program, verb, *rest = [*container["command"], *container["args"]]
    assert [program, verb] == ["dreamer-agent", "train"]
    given = parsed([text.replace("$(JOB_COMPLETION_INDEX)", "3") for text in rest])
    assert given["process"] == 3 and given["processes"] == spec["completions"] == spec["parallelism"]
    host, _, port = given["distributed"].partition(":")
    assert host == f"{job['metadata']['name']}-0.{service['metadata']['name']}" and int(port)
    assert pod["subdomain"] == service["metadata"]["name"] and spec["completionMode"] == "Indexed"
    assert service["spec"]["selector"]["job-name"] == job["metadata"]["name"]
    ignored = [rule["onExitCodes"] for rule in spec["podFailurePolicy"]["rules"] if rule["action"] == "Ignore"]
    assert ignored == [{"containerName": container["name"], "operator": "In", "values": [REQUEUE]}]
    mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert str(given["run"]).startswith(mounted["runs"]) and pod["volumes"][0]["name"] == "runs"


def test_the_job_of_slurm_is_requeued_when_it_was_asked_to_end() -> None:
    script = FILES / "slurm.sh"
    subprocess.run(["bash", "-n", script], check=True)
    lines = script.read_text().splitlines()
    [run] = [line for line in lines if line.startswith("srun")]
    arguments = shlex.split(run)
    rest = [text for text in arguments[arguments.index("train") + 1 :] if text != "$@"]
    assert parsed(["CartPole-v1", *rest])["distributed"] == "auto"
    assert any(f'"$code" -eq {REQUEUE}' in line for line in lines)


def test_a_requeued_job_keeps_its_code(tmp_path: Path) -> None:
    """The script with an `srun` that says 75, and an `scontrol` that notes what it was asked."""
    for name, content in (("srun", f"exit {REQUEUE}"), ("scontrol", f"echo $@ > {tmp_path}/asked")):
        (tmp_path / name).write_text(f"#!/bin/bash\n{content}\n")
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "17", "SLURM_JOB_NAME": "dreamer"}
    done = subprocess.run(["bash", FILES / "slurm.sh", "CartPole-v1"], env=environment)
    assert done.returncode == REQUEUE and (tmp_path / "asked").read_text().split() == ["requeue", "17"]
