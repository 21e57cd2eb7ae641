"""What a shell offers on TAB: models, runs, settings. Quick, and silent whatever goes wrong."""

import os
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    add_completion_class,
    split_arg_string,
)

Offers = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def _offering(values: Callable[[], Iterator[str]]) -> Offers:
    """Turn a list of values into what click asks for."""

    @wraps(values)
    def offer(context: click.Context, parameter: click.Parameter, begun: str) -> list[Any]:
        try:
            return [CompletionItem(value) for value in values() if value.startswith(begun)]
        except Exception:  # a user who presses TAB wants no traceback in the line being typed
            return []

    return offer


@_offering
def model_versions() -> Iterator[str]:
    """Each registered model as NAME:VERSION."""
    return (f"{name}:{version}" for name, version in _registered())


@_offering
def models() -> Iterator[str]:
    """Each registered model, alone and as NAME:VERSION."""
    found = _registered()
    yield from dict.fromkeys(name for name, _ in found)
    yield from (f"{name}:{version}" for name, version in found)


@_offering
def endpoints() -> Iterator[str]:
    """Each model that was ever in service here."""
    from lineage.workspace import workspace

    folders = workspace().endpoint("x").parent.glob("*/state.json")
    return (path.parent.name for path in sorted(folders))


@_offering
def runs() -> Iterator[str]:
    """Each run, the newest first."""
    from lineage.workspace import workspace

    folders = (path.parent for path in workspace().runs.glob("*/run.json"))
    return (path.name for path in sorted(folders, reverse=True))


@_offering
def steps() -> Iterator[str]:
    """Each step of the lifecycle; without settings there is no pipeline to ask."""
    from components.contract import Component
    from pipelines import model_lifecycle

    return (part.name for part in vars(model_lifecycle).values() if isinstance(part, Component))


@_offering
def snapshots() -> Iterator[str]:
    """The words for a snapshot, then each run."""
    from lineage.workspace import workspace

    yield from ("latest", "previous")
    folders = workspace().runs.glob("*/ingest.snapshot")
    yield from (path.parent.name for path in sorted(folders, reverse=True))


@_offering
def settings() -> Iterator[str]:
    """Each setting as SECTION.KEY=, then its values where only some are allowed."""
    from lineage.code import ROOT
    from lineage.files import read_json

    # Read from the file, for the typed settings themselves would take twice as long to import.
    schema = read_json(ROOT / "configs" / "schema" / "lifecycle.schema.json")
    return _settings(schema, schema["$defs"])


def configs(context: click.Context, parameter: click.Parameter, begun: str) -> list[Any]:
    """The settings files at hand, else any file."""
    found = [path.as_posix() for path in sorted(Path().glob("configs/*.yaml"))]
    return [CompletionItem(path) for path in found if path.startswith(begun)] or [
        CompletionItem(begun, type="file")
    ]


def _registered() -> list[tuple[str, int]]:
    """Names and versions from MLflow's own table, for importing MLflow takes seconds."""
    import sqlite3
    from contextlib import closing

    from lineage.workspace import workspace

    path = Path(workspace().mlflow_uri.removeprefix("sqlite:///")).absolute()
    query = "SELECT name, version FROM model_versions ORDER BY name, version DESC"
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=0.1)) as database:
        return database.execute(query).fetchall()


def _settings(node: dict[str, Any], known: dict[str, Any], key: str = "") -> Iterator[str]:
    options = [node, *node.get("anyOf", ())]
    options += [known[o["$ref"].rpartition("/")[2]] for o in options if "$ref" in o]
    section = next((o["properties"] for o in options if "properties" in o), None)
    if section is None:
        yield f"{key}="
        yield from (f"{key}={value}" for o in options for value in o.get("enum", ()))
    else:
        for name, inner in section.items():
            yield from _settings(inner, known, f"{key}.{name}" if key else name)


class Bash(BashComplete):
    """Click's own, which stumbles where bash does: it splits words at `:` and `=`.

    So the line as typed is asked about, and what bash has split off is cut from the answers. A
    setting's `=` is not followed by a space.
    """

    source_template = """\
%(complete_func)s() {
    local IFS=$'\\n' type value head='' line=${COMP_LINE:0:COMP_POINT}
    local word=${line##* } breaks=${COMP_WORDBREAKS//[^:=]/}
    if [[ -n $breaks && $word == *[$breaks]* ]]; then head=${word%%"${word##*[$breaks]}"}; fi
    COMPREPLY=()
    while IFS=, read -r type value; do
        case $type in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            plain)
                COMPREPLY+=("${value#"$head"}")
                if [[ $value == *= ]]; then compopt -o nospace; fi ;;
        esac
    done < <(COMP_WORDS=$line %(complete_var)s=bash_complete "$1" 2>/dev/null)
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""

    def get_completion_args(self) -> tuple[list[str], str]:
        """The words before the one being typed, and what is typed of that one."""
        line = os.environ["COMP_WORDS"]
        words = split_arg_string(line)
        begun = "" if line[-1:].isspace() else words.pop()
        return words[1:], begun


add_completion_class(Bash)
