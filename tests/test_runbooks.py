"""The runbooks held to the code: every command of ours can be typed, every file is there."""

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from pipelines.cli import cli

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted((ROOT / "docs").glob("runbook-*.md"))
OURS = r"(?:lightbox|python -m pipelines\.cli)"
# Made while the page is followed, or by the reader.
MADE = {"configs/environments/ours.yaml"}
FILES = r"(?<![\w/.:-])((?:configs|docs|tests|serving|components|pipelines)/[\w./-]*\w)"


def commands(text: str) -> Iterator[str]:
    """Every command of ours in a code block or between backticks, each on one line."""
    for block in re.findall(r"^```\n(.*?)^```", text, re.M | re.S):
        for line in block.replace("\\\n", " ").splitlines():
            if found := re.search(rf"(?:^|(?<!-n)\s){OURS} +([a-z].*)", line):  # no namespace
                yield found[1]
    prose = re.sub(r"^```\n.*?^```", "", text, flags=re.M | re.S)
    for found in re.findall(rf"`(?:env [^`]*)?{OURS} ([a-z][^`]*)`", prose):
        yield found


def fault(line: str) -> str:
    """What the command itself would say to these words before it did anything; empty if nothing."""
    words = shlex.split(line)
    command: click.Command = cli
    context = click.Context(cli, info_name="lightbox")
    while isinstance(command, click.Group):
        name, found, words = command.resolve_command(context, words)
        assert found
        command, context = found, click.Context(found, parent=context, info_name=name)
    try:
        command.parse_args(context, words)
    except click.UsageError as error:
        return f"{command.name}: {error.format_message()}"
    return ""


def test_there_is_one_for_each_engine() -> None:
    assert [page.stem for page in PAGES] == ["runbook-kubeflow", "runbook-sagemaker"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_of_ours_can_be_typed(page: Path) -> None:
    lines = list(commands(page.read_text()))
    verbs = {line.split()[0] for line in lines}
    assert verbs >= {"compile", "show", "cost", "submit", "attach", "approve", "schedule"}
    faults = [told for line in lines if (told := fault(line))]
    assert faults == []


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("compile configs/phantom.yaml --on kubeflow", "Missing option"),
        ("submit configs/phantom.yaml --on kubeflow --wiat", "No such option"),
        ("show configs/phantom.yaml --on airflow", "not one of"),
        ("attach", "Missing argument"),
        ("endpoint status --watch", "No such option"),
    ],
)
def test_what_cannot_be_typed_is_found(line: str, told: str) -> None:
    assert told in fault(line)


def test_an_unknown_command_is_found() -> None:
    with pytest.raises(click.UsageError, match="No such command"):
        fault("sumbit configs/phantom.yaml")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_shell_can_read_every_block(page: Path) -> None:
    blocks = re.findall(r"^```\n(.*?)^```", page.read_text(), re.M | re.S)
    assert len(blocks) > 8
    for block in blocks:
        read = subprocess.run(["bash", "-n"], input=block, text=True, capture_output=True)
        assert read.returncode == 0, (block, read.stderr)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_file_that_is_named_is_there(page: Path) -> None:
    named = set(re.findall(FILES, page.read_text())) - MADE
    named = {path for path in named if "$" not in path}
    assert len(named) > 4
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_was_not_tried_is_said_at_the_top(page: Path) -> None:
    above, _, _ = page.read_text().partition("## 1.")
    assert re.search(r"\*\*No line of this page has met (AWS|a cluster)\.\*\*", above)


def test_templates_are_deployed_in_the_order_of_what_they_import() -> None:
    page = (ROOT / "docs" / "runbook-sagemaker.md").read_text()
    ground = page.partition("## 1. Ground")[2].partition("## 2.")[0]
    order = re.findall(r"^deploy (\w+)", ground, re.M)
    templates = {path.stem: path.read_text() for path in (ROOT / "configs" / "aws").glob("*.yaml")}
    known: set[str] = set()
    for name in order:
        imported = re.findall(r"ImportValue: !Sub \$\{Name\}(-[\w-]+)", templates[name])
        assert set(imported) <= known, f"{name} imports what nothing above it exports"
        known |= set(re.findall(r"Name: !Sub \$\{Name\}(-[\w-]+)", templates[name]))
    gone = re.search(r"for name in ([a-z ]+); do\n  aws cloudformation delete-stack", page)
    assert gone and gone[1].split() == order[::-1]


def test_outputs_that_are_asked_for_exist() -> None:
    page = (ROOT / "docs" / "runbook-sagemaker.md").read_text()
    asked = re.findall(r'"(\w+) ([A-Z]\w+)"', page) + re.findall(r"\$\(stack (\w+) (\w+)\)", page)
    assert len(asked) > 9
    for name, output in asked:
        template = (ROOT / "configs" / "aws" / f"{name}.yaml").read_text()
        assert re.search(rf"^  {output}:$", template.partition("\nOutputs:")[2], re.M), output


def test_parameters_that_are_set_exist() -> None:
    page = (ROOT / "docs" / "runbook-sagemaker.md").read_text()
    templates = "".join(path.read_text() for path in (ROOT / "configs" / "aws").glob("*.yaml"))
    named = set(re.findall(r"[ `]([A-Z]\w+)=[^=]", page))
    named -= set(re.findall(r"--build-arg (\w+)", page))
    named = {name for name in named if not name.isupper() and "_" not in name}
    assert {"S3PrefixList", "LauncherSubjects", "NightlyState"} <= named
    for name in named - {"Name"}:
        assert re.search(rf"^  {name}:$", templates, re.M), name
