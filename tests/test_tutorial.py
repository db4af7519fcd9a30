"""The tutorial runs from its first cell to its last, and prints what its comments say. Run by `nox -s documents`."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.support.printed import differences

TUTORIAL = Path(__file__).parents[1] / "experiments" / "tutorial.ipynb"
PRINTS = "# -> "


def notebook() -> nbformat.NotebookNode:
    return nbformat.read(TUTORIAL, as_version=4)


def test_no_output_is_kept():
    for cell in notebook().cells:
        if cell.cell_type == "code":
            assert cell.outputs == [] and cell.execution_count is None


@pytest.mark.thorough
@pytest.mark.long
@pytest.mark.filterwarnings("default")  # of the kernel's own packages
def test_it_prints_what_it_says():
    book = notebook()
    NotebookClient(book, timeout=300, resources={"metadata": {"path": str(TUTORIAL.parents[1])}}).execute()
    promised = 0
    for cell in (cell for cell in book.cells if cell.cell_type == "code"):
        wanted = [line.removeprefix(PRINTS) for line in cell.source.splitlines() if line.startswith(PRINTS)]
        streams = [output for output in cell.outputs if output.output_type == "stream"]
        assert [output.text for output in streams if output.name == "stderr"] == []
        seen = "".join(output.text for output in streams).splitlines()
        assert differences(seen, wanted) == [], cell.source
        promised += len(wanted)
    assert promised >= 6
