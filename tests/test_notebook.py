"""The notebook in docs/, executed by the kernel that a reader would use."""

import os
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

DOCS = Path(__file__).resolve().parents[1] / "docs"
NOTEBOOK = DOCS / "notebook.ipynb"
pytestmark = pytest.mark.timeout(600)  # half a minute alone, minutes on a busy machine
# Who is in which split hangs on these; fixed, the story has the same end each time.
KEYS = {f"LIGHTBOX_SECRET_{name}_KEY": "5a" * 32 for name in ("PSEUDONYM", "SPLIT")}


def test_it_is_stored_without_outputs() -> None:
    """They would be of yesterday's code and of somebody's machine, and drown every review."""
    for cell in nbformat.read(NOTEBOOK, as_version=4).cells:
        assert not cell.get("outputs") and not cell.get("execution_count")


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """What each code cell left behind, by its last line."""
    folder = tmp_path_factory.mktemp("notebook")
    book = nbformat.read(NOTEBOOK, as_version=4)
    # Sockets in a folder of the user's: a port on loopback is open to everybody on the machine.
    manager = AsyncKernelManager(transport="ipc", ip=str(folder / "kernel"))
    client = NotebookClient(book, km=manager, timeout=500, resources={"metadata": {"path": DOCS}})
    env = {**os.environ, **KEYS, "TMPDIR": str(folder), "IPYTHONDIR": str(folder / "ipython")}
    env.pop("LIGHTBOX_HOME", None)
    env.pop("MLFLOW_TRACKING_URI", None)
    client.execute(env=env)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    return {cell.source.splitlines()[-1]: cell.outputs for cell in code}


def text(outputs: list[Any]) -> str:
    return "\n".join(output.data["text/plain"] for output in outputs)


def states(told: str) -> dict[str, str]:
    """Step and state of each row of a table in plain text."""
    rows = [line.split() for line in told.splitlines()]
    return {row[0]: row[2] for row in rows if len(row) > 2 and row[1] in "✓↺✗–"}


def test_its_story_is_true(cells) -> None:
    assert text(cells["first.outcome, first.exit_code"]) == "('refused', 3)"
    assert ", waiting for approval: " in text(cells["second = run(longer)"])
    told = text(cells["models()"])
    assert "phantom-finding:1  fail" in told and "phantom-finding:2  pass" in told


def test_one_changed_setting_runs_what_depends_on_it(cells) -> None:
    rows = [line.split()[:2] for line in text(cells["plan(longer)"]).splitlines()]
    planned = {row[0]: row[1] for row in rows}
    fared = states(text(cells["second = run(longer)"]))
    for step in ("ingest", "validate", "split"):
        assert (planned[step], fared[step]) == ("reuse", "reused")
    assert (planned["train"], fared["train"]) == ("run", "ran")
    assert fared == states(text(cells["second.explain()"]))
    compared = text(cells["compare(first, second)"])
    assert [line.split() for line in compared.splitlines()][2] == ["train.max_epochs", "2", "16"]


@pytest.mark.parametrize("cell", ["first = run(settings)", "second = run(longer)"])
def test_a_run_is_one_table_in_its_cell_and_nothing_else(cells, cell) -> None:
    (output,) = cells[cell]
    assert output.output_type == "display_data"
    assert "<table>" in output.data["text/html"]


def test_what_is_drawn_is_shown(cells) -> None:
    drawn = [line for line in cells if line.endswith(";") or line.strip() == 'axes.axis("off")']
    assert len(drawn) == 4
    for line in drawn:
        assert [list(output.data) for output in cells[line]] == [["text/plain", "image/png"]]


def test_the_lineage_is_a_page_of_its_own(cells) -> None:
    (output,) = cells['lineage("phantom-finding:2")']
    page = output.data["text/html"]
    assert page.startswith("<iframe sandbox srcdoc=") and "<style" not in page
    assert "phantom-finding:2  passed the gate, waits for approval" in text([output])
