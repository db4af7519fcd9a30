"""How the code is built: what a test can hold of it by reading it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
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
