"""A test module stands alone: what several share is a module of `tests.support` or `tests.devices`."""

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parent


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
    found = {str(file.relative_to(TESTS)): imports_of_tests(file.read_text()) for file in TESTS.rglob("*.py")}
    assert {"test_modules.py", "support/problems.py", "devices/test_wire.py"} <= found.keys()
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
