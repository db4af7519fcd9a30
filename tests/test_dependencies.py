"""What the code imports is what `pyproject.toml` declares, so that an installation has all it needs."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
DECLARED = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = DECLARED["project"]
OURS = {"mmoe_jax", "parties", "experiments"}
# Module -> the distribution that it comes in, where the names differ.
DISTRIBUTIONS = {
    "deepctr_torch": "deepctr-torch",
    "dp_accounting": "dp-accounting",
    "grpc": "grpcio",
    "mlflow": "mlflow-skinny",  # or all of mlflow
    "sklearn": "scikit-learn",
    "tomli_w": "tomli-w",
    "tomllib": "tomli",  # where Python has none
}
WITH_SECRETFLOW = {"ray", "spu"}  # SecretFlow brings the versions that it needs, and Ray only up to 1.13
EXTRAS = {  # files or folders -> the extra that they may also import from
    "experiments": "experiments",
    "experiments/benchmark_secretflow.py": "secretflow",
    "experiments/boosting.py": "flights",
    "experiments/deepctr.py": "benchmark",
    "experiments/gallery/mlflow_scores.py": "documents",
    "experiments/gallery/tensorboard_scores.py": "documents",
    "experiments/large_tables.py": "tables",
    "parties/command/certificates.py": "keys",
    "parties/data/arrow.py": "tables",
    "parties/devices": "secretflow",
    "parties/privacy/guarantee.py": "privacy",
    "parties/testing/problems.py": "testing",
    "parties/reporting": "report",
}


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[^\w-]", requirement)[0] for requirement in requirements}


def imported(file: Path) -> Iterator[str]:
    """Distributions that a file imports from, wherever in it, neither Python's nor ours."""
    for node in ast.walk(ast.parse(file.read_text())):
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        modules += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
        for top in {module.split(".")[0] for module in modules} - sys.stdlib_module_names - OURS:
            yield DISTRIBUTIONS.get(top, top)


def declared(file: str) -> set[str]:
    """Distributions that the file may import from."""
    extras = [extra for place, extra in EXTRAS.items() if file == place or file.startswith(f"{place}/")]
    optional = set().union(*(names(PROJECT["optional-dependencies"][extra]) for extra in extras))
    return names(PROJECT["dependencies"]) | optional | (WITH_SECRETFLOW if "secretflow" in extras else set())


@pytest.mark.parametrize("package", sorted(OURS))
def test_imports_are_declared(package):
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    for file in files:
        name = file.relative_to(ROOT).as_posix()
        assert not set(imported(file)) - declared(name), f"{name} imports what is not declared"


def test_no_dependency_is_declared_in_vain():
    files = [file for package in ("mmoe_jax", "parties") for file in (ROOT / package).rglob("*.py")]
    assert names(PROJECT["dependencies"]) <= {name for file in files for name in imported(file)}
    files = [*(ROOT / "experiments").rglob("*.py")]
    optional = PROJECT["optional-dependencies"]
    ours = names(optional["privacy"]) | names(optional["report"])  # of which `parties` imports
    own = names(optional["experiments"]) - ours
    assert own <= {name for file in files for name in imported(file)}


@pytest.mark.parametrize("package", ["mmoe_jax", "parties"])
def test_files_that_are_no_code_are_packaged(package):
    """Setuptools takes modules by itself, and no other file."""
    others = {file for file in (ROOT / package).rglob("*.*") if file.suffix not in (".py", ".pyc")}
    patterns = DECLARED["tool"]["setuptools"]["package-data"][package]
    assert others == {file for pattern in patterns for file in (ROOT / package).glob(pattern)}
