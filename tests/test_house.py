"""How the code is built: what a test can hold of it by reading it."""

import ast
import itertools
import re
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

import mmoe_jax
import parties

ROOT = Path(__file__).parents[1]
OURS = ("mmoe_jax", "parties")
SOURCES = sorted(file for package in ("mmoe_jax", "parties") for file in (ROOT / package).rglob("*.py"))


def own_attributes(body: list[ast.stmt]) -> Iterator[str]:
    """Names that a function gives to attributes of `self`."""
    for node in (node for statement in body for node in ast.walk(statement)):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and isinstance(node.value, ast.Name):
            if node.value.id == "self":
                yield node.attr


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(ROOT)))
def test_every_attribute_is_born_in_init(file):
    for kind in (node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.ClassDef)):
        functions = [node for node in kind.body if isinstance(node, ast.FunctionDef)]
        born = {node.target.id for node in kind.body if isinstance(node, ast.AnnAssign)}  # type: ignore[union-attr]
        for function in functions:
            if function.name in ("__init__", "__post_init__"):
                born |= {*own_attributes(function.body)}
        for function in functions:
            late = {*own_attributes(function.body)} - born
            assert not late, f"{kind.name}.{function.name} makes {sorted(late)}"


def imports_of_tests(source: str) -> list[str]:
    """What is imported of modules whose names begin with `test_`, in whatever way and place."""
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names += [f"{node.module or ''}.{alias.name}" for alias in node.names]
    return [name for name in names if any(part.startswith("test_") for part in name.split("."))]


def test_no_module_imports_a_test_module():
    """What several tests share is a module of `tests.support` or `tests.devices`."""
    found = {
        str(file.relative_to(ROOT / "tests")): imports_of_tests(file.read_text())
        for file in (ROOT / "tests").rglob("*.py")
    }
    assert {"test_house.py", "support/problems.py", "devices/test_wire.py"} <= found.keys()
    assert {file: names for file, names in found.items() if names} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import tests.test_saving",
        "import tests.test_saving as saving",
        "from tests import devices, test_saving",
        "from tests.test_saving import data",
        "from .test_saving import data",
        "from . import test_saving",
        "def test():\n    from tests.devices.test_pyu import model",
    ],
)
def test_an_import_of_a_test_module_is_found(source):
    assert len(imports_of_tests(source)) == 1


def imports(file: Path) -> Iterator[str]:
    """Modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (module if path(module).exists() else node.module for module in modules)


def path(module: str) -> Path:
    """The file of a module of ours."""
    place = ROOT.joinpath(*module.split("."))
    return place / "__init__.py" if place.is_dir() else place.with_suffix(".py")


def room(file: Path) -> str:
    """The door behind which a file is, as `ARCHITECTURE.md` names it."""
    inside = file.relative_to(ROOT).with_suffix("").parts
    return inside[0] if inside[0] != "parties" or inside[1] == "__init__" else inside[1]


def test_imports_follow_the_arrows():
    """Those of the table in ARCHITECTURE.md, no more and no fewer; none points up."""
    lines = (ROOT / "ARCHITECTURE.md").read_text().splitlines()
    start = next(at for at, line in enumerate(lines) if line.startswith("| in `parties/` |")) + 2
    table = [line.split("|")[1:4] for line in itertools.takewhile(lambda line: line.startswith("|"), lines[start:])]
    wanted = {door.strip(" `"): {name.strip() for name in knows.split(",")} - {""} for door, _, knows in table}
    floors = [*wanted, "errors", "mmoe_jax"]
    seen: dict[str, set[str]] = {door: set() for door in wanted}
    for file in SOURCES:
        known = {room(path(module)) for module in imports(file) if module.split(".")[0] in OURS}
        if room(file) == "mmoe_jax":
            assert known <= {"mmoe_jax"}, file
        elif room(file) != "parties":  # which shows the names of all
            assert all(floors.index(room(file)) <= floors.index(other) for other in known), (file, known)
            seen.get(room(file), set()).update(known - {room(file), "errors"})
    assert seen == wanted
    assert len([entry for entry in (ROOT / "parties").iterdir() if entry.is_file()]) <= 5


def test_no_two_files_import_each_other_in_a_circle():
    graph = {file: {path(m) for m in imports(file) if m.split(".")[0] in OURS} - {file} for file in SOURCES}
    while leaves := {file for file, known in graph.items() if not known & graph.keys()}:
        graph = {file: known for file, known in graph.items() if file not in leaves}
    assert not graph, f"circles among {sorted(str(file.relative_to(ROOT)) for file in graph)}"


def test_secretflow_is_imported_only_where_it_is_used():
    for file in SOURCES:
        modules = [name for node in ast.parse(file.read_text()).body for name in named(node)]
        if file.name != "transports.py":  # which is itself imported late
            late = ("secretflow", "grpc", "spu", "parties.devices.transports")
            assert not any(name.startswith(late) for name in modules), file


def named(node: ast.stmt) -> list[str]:
    names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
    return [*names, node.module or ""] if isinstance(node, ast.ImportFrom) else names


def test_one_version():
    """A version is written in `mmoe_jax` and, as no tool reads it there, in CITATION.cff."""
    cited = re.search(r"^version: (.*)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert cited
    assert mmoe_jax.__version__ == parties.__version__ == metadata.version("mmoe-jax") == cited[1]
