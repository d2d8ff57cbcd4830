"""Plugs: registering, entry points of installed packages, and modules named by `plugins`."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from dreamer_agent.config import Config, load_config, read_config, save_config
from dreamer_agent.envs import SUITES, make_env
from dreamer_agent.errors import ConfigError
from dreamer_agent.registry import Registry, import_plugins
from dreamer_agent.world_model import ENCODERS


def error_of(run: Callable[[], Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        run()
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")
    return str(caught.value)


def make_one() -> int:
    """Makes one.

    More of it.
    """
    return 1


def make_two() -> int:
    return 2


@pytest.fixture
def encoders() -> Registry:
    registry: Registry = Registry("encoder")
    registry.register("wide")(make_one)
    return registry


@pytest.fixture
def points(monkeypatch: pytest.MonkeyPatch) -> list[EntryPoint]:
    """The installed entry points: those that the test puts in here."""
    found: list[EntryPoint] = []

    def entry_points(group: str) -> list[EntryPoint]:
        return [point for point in found if point.group == group]

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
    return found


def point(name: str, value: str, group: str = "dreamer_agent.encoders") -> EntryPoint:
    return EntryPoint(name, value, group)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder for modules of the test, forgotten afterwards."""
    before = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", os.getcwd())])
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def test_what_is_registered_is_found(encoders: Registry) -> None:
    assert encoders.register("deep")(make_two) is make_two
    assert encoders.get("deep") is make_two and encoders.get("wide") is make_one
    assert encoders.names() == sorted(encoders) == ["deep", "wide"]
    assert dict(encoders.items()) == {"deep": make_two, "wide": make_one}
    assert encoders.describe("wide") == "Makes one." and encoders.describe("deep") == ""
    assert encoders.pop("deep") is make_two
    assert "wide" in encoders and "deep" not in encoders


def test_an_unknown_name_tells_what_is_known(encoders: Registry, points: list[EntryPoint]) -> None:
    points.append(point("wired", "nowhere:at_all"))
    message = error_of(lambda: encoders.get("widr"))
    assert message.startswith("Unknown encoder 'widr': known are wide, wired ('wide' is the nearest)")
    assert "plugins=[MODULE]" in message and "dreamer_agent.register_encoder" in message
    assert "nearest" not in error_of(lambda: encoders.get("xyzzy"))
    assert "known are none" in error_of(lambda: Registry("logger").get("wandb"))


def test_a_taken_name_is_refused_unless_it_is_replaced(encoders: Registry) -> None:
    message = error_of(lambda: encoders.register("wide")(make_two))
    assert message.startswith("The encoder 'wide' is registered already, by tests.test_registry")
    assert encoders.get("wide") is make_one
    encoders.register("wide")(make_one)
    encoders.register("wide", replace=True)(make_two)
    assert encoders.get("wide") is make_two


def test_the_same_function_defined_again_is_not_another(encoders: Registry) -> None:
    """As by a notebook's cell that runs twice; but two lambdas of one file are two."""
    cell = "def narrow(): return {}"
    spaces = [{"__name__": "notebook"}, {"__name__": "notebook"}]
    for number, space in enumerate(spaces):
        exec(compile(cell.format(number), f"cell {number}", "exec"), space)
        encoders.register("narrow")(space["narrow"])  # type: ignore[arg-type]
    assert encoders.get("narrow")() == 1
    encoders.register("lambda")(lambda: 1)
    assert "registered already" in error_of(lambda: encoders.register("lambda")(lambda: 2))


def test_an_entry_point_is_loaded_when_it_is_asked_for(encoders: Registry, points: list[EntryPoint]) -> None:
    sys.modules.pop("this", None)
    points += [point("path", "posixpath:join"), point("zen", "this:d"), point("other", "json:dumps", "other")]
    assert encoders.names() == ["path", "wide", "zen"] and "path" in encoders and "other" not in encoders
    assert encoders.describe("zen") == "From the package this."
    assert encoders.get("path") is importlib.import_module("posixpath").join
    assert "this" not in sys.modules
    assert dict(encoders.items()).keys() == {"path", "wide"}
    points.clear()
    assert encoders.get("path")("a", "b") == "a/b"  # it stays


def test_what_is_registered_goes_before_an_entry_point(encoders: Registry, points: list[EntryPoint]) -> None:
    points.append(point("wide", "posixpath:join"))
    assert encoders.get("wide") is make_one and encoders.names() == ["wide"]


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (
            ["no_such_module:f"],
            "cannot be imported from 'no_such_module:f' (ModuleNotFoundError: No module named",
        ),
        (["posixpath:no_such_name"], "(AttributeError: module 'posixpath' has no attribute"),
        (["sys:path"], "should be a function that makes one, but 'sys:path' is ["),
        (
            ["posixpath:join", "ntpath:join"],
            "by more than one package, ntpath and posixpath: uninstall all but one",
        ),
    ],
)
def test_a_broken_entry_point_is_one_sentence(
    encoders: Registry, points: list[EntryPoint], values: list[str], told: str
) -> None:
    points += [point("broken", value) for value in values]
    message = error_of(lambda: encoders.get("broken"))
    assert message.startswith("The encoder 'broken'") and told in message
    assert "broken" in encoders  # the name exists, and is not taken for anything else


def test_an_installed_package_brings_an_encoder_and_a_suite(folder: Path) -> None:
    info = folder / "plugged_in-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugged-in\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[dreamer_agent.encoders]\noutside = plugged_in:encoder\nbroken = plugged_in.missing:encoder\n"
        "[dreamer_agent.suites]\nhall = plugged_in:hall\n"
    )
    (folder / "plugged_in.py").write_text(
        "def encoder(specs, config, dtype): ...\ndef hall(task, config, count): return task, config.id, count\n"
    )
    sys.path.append(str(folder))
    importlib.invalidate_caches()
    assert "outside" in sorted(ENCODERS) and "hall" in sorted(SUITES)
    assert SUITES.describe("hall") == "From the package plugged-in."
    try:
        assert ENCODERS.get("outside").__module__ == "plugged_in"
        assert make_env(load_config(overrides=["env.id=hall:long"]).env, 3) == ("long", "hall:long", 3)
    finally:
        ENCODERS.pop("outside")
        SUITES.pop("hall")
    assert "of the package plugged-in cannot be imported" in error_of(lambda: ENCODERS.get("broken"))


def test_plugins_are_imported_from_the_current_folder(folder: Path) -> None:
    (folder / "my_plug.py").write_text(
        "from dreamer_agent import register_encoder\n@register_encoder('plugged')\ndef f(a, b, c): ...\n"
    )
    import_plugins(["my_plug", "my_plug"])
    assert ENCODERS.pop("plugged").__module__ == "my_plug"
    assert sys.path[0] == str(folder)


def test_without_plugins_the_path_stays(folder: Path) -> None:
    before = list(sys.path)
    import_plugins(())
    assert sys.path == before


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "There is no module 'plug', which plugins names"),
        ("import no_such_library", "fails when it is imported (ModuleNotFoundError: No module named 'no_such"),
        ("1 / 0", "fails when it is imported (ZeroDivisionError: division by zero): mend it"),
        ("def f(:", "fails when it is imported (SyntaxError"),
        (
            "from dreamer_agent import *\nregister_encoder('haiku')(len)",
            "'haiku' is registered already",
        ),
    ],
)
def test_a_plugin_that_fails_is_one_sentence(folder: Path, content: str | None, told: str) -> None:
    if content is not None:
        (folder / "plug.py").write_text(content)
    assert told in error_of(lambda: import_plugins(["plug"]))


def test_a_path_is_no_module(folder: Path) -> None:
    (folder / "plug.py").write_text("")
    assert "no path, no .py" in error_of(lambda: import_plugins(["plug.py"]))
    assert "There is no module 'folder.plug'" in error_of(lambda: import_plugins(["folder.plug"]))


def test_a_script_may_name_itself_as_a_plugin(folder: Path) -> None:
    """So that `evaluate` finds what the script registered, which Python sees as two modules."""
    (folder / "script.py").write_text(
        "from dreamer_agent.registry import import_plugins\n"
        "from dreamer_agent.envs import SUITES, register_suite\n"
        "@register_suite('mine')\n"
        "def mine(task, config, count): ...\n"
        "if __name__ == '__main__':\n"
        "    import_plugins(['script'])\n"
        "    print('made by', SUITES.get('mine').__module__)\n"
    )
    root = str(Path(__file__).parent.parent)
    environment = {**os.environ, "PYTHONPATH": root}
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=folder, capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "made by script"


def test_plugins_and_loggers_are_saved_with_the_run(tmp_path: Path) -> None:
    config = load_config(overrides=["plugins=[a, b.c]", "train.loggers=[wandb]"])
    assert config.plugins == ("a", "b.c") and config.train.loggers == ("wandb",)
    save_config(config, tmp_path / "config.yaml")
    assert read_config(tmp_path / "config.yaml") == config
    assert Config().plugins == () and Config().train.loggers == ()
    assert "'plugins' takes a value of type tuple, written [a, b]; got 'a'" in error_of(
        lambda: load_config(overrides=["plugins=a"])
    )
