"""The process of one run ends, and saves, once its launcher is gone."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil


def test_runs_do_not_outlive_a_launcher_that_was_killed(tmp_path: Path) -> None:
    child = (
        "import sys, time; from pathlib import Path; from dreamer_agent.launch.worker import end_with_parent; "
        "end_with_parent(0.1); Path(sys.argv[1]).write_text('up'); time.sleep(60)"
    )
    parent = (
        "import subprocess, sys, time; from pathlib import Path\n"
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}, sys.argv[1]])\n"
        "while not Path(sys.argv[1]).exists(): time.sleep(0.05)\n"
        "print(child.pid, flush=True)"
    )
    done = subprocess.run([sys.executable, "-c", parent, str(tmp_path / "up")], capture_output=True, text=True)
    process = psutil.Process(int(done.stdout)) if psutil.pid_exists(int(done.stdout)) else None
    if process is not None:
        psutil.wait_procs([process], timeout=30)
        assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_a_run_whose_launcher_was_killed_while_it_imported_does_not_begin(tmp_path: Path) -> None:
    up, gone, ended, trained = (tmp_path / name for name in ("up", "gone", "ended", "trained"))
    child = (
        "import sys, time; from pathlib import Path; from dreamer_agent.launch import worker\n"
        "up, gone, ended, trained = map(Path, sys.argv[1:]); up.touch()\n"
        "while not gone.exists(): time.sleep(0.05)\n"  # imports take so long
        "try: worker.main(trained.touch)\n"
        "finally: ended.touch()"
    )
    parent = (
        "import os, sys, time; from pathlib import Path; from dreamer_agent.launch.work import start\n"
        f"start([sys.executable, '-c', {child!r}, *sys.argv[1:]], Path(sys.argv[1]).with_suffix('.log'))\n"
        "while not Path(sys.argv[1]).exists(): time.sleep(0.05)\n"
        "os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", parent, *map(str, (up, gone, ended, trained))])
    gone.touch()
    end = time.monotonic() + 30
    while not ended.exists():
        assert time.monotonic() < end
        time.sleep(0.05)
    assert not trained.exists()


def test_a_run_that_saves_already_is_not_asked_again_when_its_launcher_is_gone(tmp_path: Path) -> None:
    child = (
        "import sys, time; from pathlib import Path; from dreamer_agent.interrupt import on_interrupt\n"
        "from dreamer_agent.launch.worker import end_with_parent\n"
        "end_with_parent(0.05); up, asked, saved = map(Path, sys.argv[1:])\n"
        "with on_interrupt(lambda _: asked.touch()):\n"
        "    up.touch()\n"
        "    while not asked.exists(): time.sleep(0.05)\n"
        "    time.sleep(1.5); saved.touch()"
    )
    files = [tmp_path / name for name in ("up", "asked", "saved")]
    parent = (
        "import subprocess, sys, time; from pathlib import Path\n"
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}, *sys.argv[1:]])\n"
        "while not Path(sys.argv[1]).exists(): time.sleep(0.05)\n"
        "child.terminate()\n"
        "while not Path(sys.argv[2]).exists(): time.sleep(0.05)"
    )
    subprocess.run([sys.executable, "-c", parent, *map(str, files)], check=True)
    end = time.monotonic() + 30
    while not files[-1].exists():
        assert time.monotonic() < end
        time.sleep(0.05)
