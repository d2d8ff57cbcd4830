"""The rooms of the library and the arrows between them, read off its imports."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import dreamer_agent

PACKAGE = Path(dreamer_agent.__file__).parent

LEAVES = {  # anyone may import these
    "errors", "specs", "config", "values", "limits", "registry", "compiling", "files", "interrupt", "version",
    "ray_connection",
}  # fmt: skip
SUPPLIERS = {"replay", "envs"}  # they import nothing but the leaves
ORDER = [
    {"ops"}, {"distributions"}, {"nets"}, {"world_model"}, {"behaviour", "optim", "hyper"}, {"planning"},
    {"agent"}, {"statistics"}, {"training", "dreams"}, {"api"}, {"plots", "launch"}, {"sweeps", "bench", "play"},
    {"cli"},
]  # fmt: skip
RANK = {room: rank for rank, rooms in enumerate(ORDER) for room in rooms}
FROM_TRAINING_ON = RANK["training"]  # from here on a room may import the suppliers
ENTRANCES = {"__init__", "__main__"}  # these import whatever they show

LEARNER = {room for room, rank in RANK.items() if rank <= RANK["agent"]} | {"replay"} | LEAVES
LEARNER_NEEDS = {"jax", "flax", "optax", "chex", "numpy", "ml_dtypes", "yaml"}  # the last but one is JAX's own


class Import(NamedTuple):
    """`name` (dotted) as imported in `file`; `lazy` inside a function or only for types."""

    file: Path
    line: int
    name: str
    lazy: bool

    def __str__(self) -> str:
        return f"{self.file.relative_to(PACKAGE.parent)}:{self.line} imports {self.name}"


def imports_of(file: Path, source: str) -> list[Import]:
    return list(_walk(file, ast.parse(source), lazy=False))


def _walk(file: Path, node: ast.AST, lazy: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Import(file, child.lineno, alias.name, lazy) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            base = [*_parents(file)[: -(child.level - 1) or None]] if child.level else []
            base += child.module.split(".") if child.module else []
            yield from (Import(file, child.lineno, ".".join([*base, alias.name]), lazy) for alias in child.names)
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from _walk(file, child, True)
        else:
            types_only = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
            yield from _walk(file, child, lazy or types_only)


def _parents(file: Path) -> list[str]:
    """The package that relative imports in `file` start from."""
    return ["dreamer_agent", *file.relative_to(PACKAGE).parent.parts]


def room_of(file: Path) -> str:
    return file.relative_to(PACKAGE).with_suffix("").parts[0]


FILES = sorted(PACKAGE.rglob("*.py"))
IMPORTS = [found for file in FILES for found in imports_of(file, file.read_text())]


def allowed(room: str, imported: str) -> bool:
    """Whether a module of `room` may import one of the room `imported`."""
    if room == imported or room in ENTRANCES or imported in LEAVES:
        # Leaves may not import each other in a circle.
        known = {
            "config": {"errors", "files", "limits", "values"}, "limits": {"errors"}, "values": {"errors"},
            "registry": {"errors"}, "files": {"errors"},
            "ray_connection": {"errors"},
        }  # fmt: skip
        return room not in LEAVES or room == imported or imported in known.get(room, ())
    if room in LEAVES | SUPPLIERS or imported not in RANK.keys() | SUPPLIERS:
        return False
    if imported in SUPPLIERS:
        return RANK[room] >= FROM_TRAINING_ON
    return RANK[imported] < RANK[room]


def test_every_room_has_its_place() -> None:
    assert {room_of(file) for file in FILES} <= RANK.keys() | LEAVES | SUPPLIERS | ENTRANCES


def test_rooms_import_only_what_lies_before_them() -> None:
    ours = [found for found in IMPORTS if found.name.split(".")[0] == "dreamer_agent"]
    assert len(ours) > 100
    wrong = []
    for found in ours:
        parts = found.name.split(".")
        if len(parts) > 1 and not allowed(room_of(found.file), parts[1]):
            wrong.append(str(found))
    assert not wrong


@pytest.mark.parametrize(
    ("room", "imported", "expected"),
    [
        ("distributions", "ops", True),
        ("ops", "distributions", False),
        ("agent", "behaviour", True),
        ("optim", "behaviour", False),
        ("behaviour", "planning", False),
        ("dreams", "training", False),
        ("training", "envs", True),
        ("agent", "envs", False),
        ("world_model", "replay", False),
        ("replay", "envs", False),
        ("envs", "specs", True),
        ("replay", "ops", False),
        ("config", "errors", True),
        ("errors", "config", False),
        ("registry", "errors", True),
        ("registry", "config", False),
        ("envs", "registry", True),
        ("cli", "api", True),
        ("api", "cli", False),
        ("ops", "errors", True),
    ],
)
def test_the_arrows_mean_what_the_drawing_says(room: str, imported: str, expected: bool) -> None:
    assert allowed(room, imported) is expected


def module_of(file: Path) -> str:
    parts = ["dreamer_agent", *file.relative_to(PACKAGE).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_the_learner_imports_little() -> None:
    """Whatever else it uses (Haiku), it imports where it is needed: in a function, or in a module for it alone
    that only functions import.
    """
    eager = {name for found in IMPORTS if not found.lazy for name in (found.name, found.name.rpartition(".")[0])}
    known = LEARNER_NEEDS | sys.stdlib_module_names | {"dreamer_agent"}
    extra = [
        found
        for found in IMPORTS
        if room_of(found.file) in LEARNER and not found.lazy and found.name.split(".")[0] not in known
    ]
    assert not [str(found) for found in extra if module_of(found.file) in eager]
    assert {found.name for found in extra} <= {"haiku"}


def test_lazy_and_relative_imports_are_seen() -> None:
    file = PACKAGE / "nets" / "example.py"
    source = "\n".join(
        [
            "import a.b, c",
            "from . import d",
            "from ..ops import e",
            "from dreamer_agent import f",
            "def g():",
            "    from h import i",
            "if TYPE_CHECKING:",
            "    import j",
            "try:",
            "    import k",
            "except ImportError:",
            "    k = None",
            "class L:",
            "    import m",
        ]
    )
    assert [(found.name, found.lazy) for found in imports_of(file, source)] == [
        ("a.b", False),
        ("c", False),
        ("dreamer_agent.nets.d", False),
        ("dreamer_agent.ops.e", False),
        ("dreamer_agent.f", False),
        ("h.i", True),
        ("j", True),
        ("k", False),
        ("m", False),
    ]


def test_the_learner_runs_without_what_it_does_not_need() -> None:
    """An agent is made where the libraries of environments, logs and checkpoints are missing."""
    program = """
import sys
for name in ("gymnasium", "haiku", "tensorboardX", "matplotlib", "orbax", "typer", "PIL", "psutil"):
    sys.modules[name] = None
import dreamer_agent.agent, dreamer_agent.config, dreamer_agent.replay, dreamer_agent.specs
import jax
config = dreamer_agent.config.load_config(["size/nano"])
obs = {"obs": dreamer_agent.specs.ArraySpec("continuous", (3,))}
act = {"action": dreamer_agent.specs.ArraySpec("discrete", (), 2)}
agent = dreamer_agent.agent.Agent.create(config, obs, act)
state = jax.eval_shape(agent.init, jax.random.PRNGKey(0))
print("parameters", dreamer_agent.agent.count_parameters(state.params))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=PACKAGE.parent)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split("parameters ")[1]) > 10_000
