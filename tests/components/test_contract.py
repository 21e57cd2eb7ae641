"""Which code a component's key names."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lineage.code import ROOT

DECLARES = """
from pydantic import BaseModel
from components.contract import Output, component

class Settings(BaseModel):
    level: int = 1

@component()
def train(config: Settings, words: Output) -> None:
    (words / "words.txt").write_text("mine")

from lineage.code import sources
print(train.module, *sources(train.module), sep="\\n")
"""


def told(*command: str, text: str = "") -> list[str]:
    done = subprocess.run(
        [sys.executable, *command],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        input=text,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_script_s_component_is_not_taken_for_ours_of_the_same_name(tmp_path: Path) -> None:
    """Else its key would name our file, and an edit of the script would not count."""
    script = tmp_path / "own.py"
    script.write_text(DECLARES)
    module, *files = told(str(script))
    assert module == "__main__"
    assert {str(script), "components/contract.py"} <= {*files}


@pytest.mark.parametrize("command", [("-",), ("-c", DECLARES)], ids=["typed", "given"])
def test_what_lies_in_no_file_is_refused(command: tuple[str, ...]) -> None:
    """As in a cell of a notebook: nothing would tell one text of it from the next."""
    with pytest.raises(AssertionError, match="train: declare it in a file"):
        told(*command, text=DECLARES)
