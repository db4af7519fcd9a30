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
