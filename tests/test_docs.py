"""Documentation held to the code: links lead somewhere, every command and step is described."""

import re
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete

from lineage.code import PACKAGES
from pipelines.cli import cli

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
COMPONENTS = sorted(
    path.stem for path in (ROOT / "components").glob("*.py") if "\n@component(" in path.read_text()
)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def commands(group: click.Group, prefix: str = "") -> list[tuple[str, click.Command]]:
    found = []
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            found += commands(command, f"{prefix}{name} ")
        else:
            found.append((prefix + name, command))
    return found


@pytest.mark.parametrize(("name", "command"), commands(cli))
def test_every_command_has_an_example_and_stands_in_the_readme(name, command) -> None:
    assert command.help and f"Example: lightbox {name}" in command.help
    group, _, verb = f" {name}".rpartition(" ")
    described = rf"^.*lightbox{group} (?:\w+\|)*{verb}\b"  # verbs of a group may share a line
    assert re.search(described, (ROOT / "README.md").read_text(), re.MULTILINE)


@pytest.mark.parametrize(("name", "command"), commands(cli))
def test_completion_offers_what_the_help_describes(name, command) -> None:
    completion = ShellComplete(cli, {}, "lightbox", "_LIGHTBOX_COMPLETE")
    *group, verb = name.split()
    assert verb in {item.value for item in completion.get_completions(group, "")}
    offered = {item.value for item in completion.get_completions(name.split(), "-")}

    above = click.Context(cli, info_name="lightbox", **cli.context_settings)
    help = command.get_help(click.Context(command, parent=above, info_name=name))
    described = re.findall(r"^  (-.*?)(?:  |$)", help.partition("Options:")[2], re.MULTILINE)
    assert offered == {option for line in described for option in re.findall(r"--?[a-z-]+", line)}


@pytest.mark.parametrize("name", COMPONENTS)
def test_every_step_stands_in_the_readme_and_in_adding_a_step(name: str) -> None:
    assert name in (ROOT / "README.md").read_text()
    assert f"`{name}`" in (ROOT / "docs" / "adding-a-step.md").read_text()


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_stands_in_the_readme_s_map(package: str) -> None:
    assert f"{package}/" in (ROOT / "README.md").read_text()


def test_every_decision_is_listed() -> None:
    index = (ROOT / "docs" / "decisions" / "README.md").read_text()
    for record in (ROOT / "docs" / "decisions").glob("0*.md"):
        assert record.name in index


def test_every_step_of_the_picture_is_a_step_of_the_pipeline() -> None:
    picture = (ROOT / "README.md").read_text().split("```mermaid")[1].split("```")[0]
    assert [name for name in COMPONENTS if f"{name}[" in picture or f"{name}{{" in picture] == (
        COMPONENTS
    )


def test_settings_named_in_the_docs_and_in_the_help_exist() -> None:
    from pipelines.config import LifecycleConfig

    texts = [page.read_text() for page in PAGES]
    texts += [command.help or "" for _, command in commands(cli)]
    keys = {key for text in texts for key in re.findall(r"--set '?([a-z_]+(?:\.[a-z_]+)+)=", text)}
    assert keys
    for key in keys:
        section, *rest = key.split(".")
        model = LifecycleConfig.model_fields[section].annotation
        assert isinstance(model, type) and rest[0] in model.model_fields, key
