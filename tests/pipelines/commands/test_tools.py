"""The command around schemas; doctor, pages and completion have test files of their own."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from lineage.errors import BadInput
from pipelines.cli import cli
from pipelines.commands.tools import KINDS
from pipelines.schema import KINDS as ALL
from pipelines.schema import as_text


def invoke(*words: str) -> str:
    result = CliRunner().invoke(cli, words, standalone_mode=False)
    if result.exception:
        raise result.exception
    return result.output


def test_a_schema_is_printed_or_written(tmp_path: Path) -> None:
    assert KINDS == ALL  # written twice, so that the help need not import pydantic
    assert invoke("schema") == as_text("lifecycle")
    path = tmp_path / "k.json"
    assert invoke("schema", "kubeflow", "-o", str(path)) == f"wrote {path}\n"
    assert path.read_text() == as_text("kubeflow")


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"s\.json: cannot be written \(No such file or directory\)"):
        invoke("schema", "-o", str(tmp_path / "nowhere" / "s.json"))
