"""Read settings from YAML into a typed object, with errors that show file, line and the way out."""

import difflib
import os
import re
import types
import typing
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from lineage.errors import BadInput

Settings = TypeVar("Settings", bound=BaseModel)


def read_settings(path: Path, kind: type[Settings], overrides: Sequence[str] = ()) -> Settings:
    """Read a YAML file, apply `section.key=value` overrides, check every key and type.

    `${NAME}` and `${NAME:-default}` in a value are taken from the environment.

    Raises:
        BadInput: With file, line and key, and the nearest valid key for a typo.
    """
    try:
        text = path.read_text()
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise BadInput(f"{path}: not a text file; settings are written in YAML") from None
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "not YAML"
        raise BadInput(f"{path}{line}: {problem}") from None
    if not isinstance(values, dict):
        raise BadInput(f"{path}: expected sections such as {_names(kind)[:3]}")
    _refuse_duplicates(path, root)
    values = _expand(values)
    for override in overrides:
        _apply(values, override)
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        overridden = {o.partition("=")[0] for o in overrides}
        faults = error.errors(include_url=False)
        lines = [_sentence(path, kind, root, overridden, fault) for fault in faults]
        raise BadInput("\n".join(lines)) from None


def placed(path: Path, overrides: Sequence[str], sentence: str) -> str:
    """Put file and line before a sentence that begins with a setting, `training.network.name: …`.

    Steps know their settings by name only; a person looks for the line, or for the `--set`.
    """
    name = re.match(r"[a-z_]+(?:\.\w+)+", sentence)
    if not name:
        return sentence
    if any(f"{name[0]}.".startswith(f"{o.partition('=')[0]}.") for o in overrides):
        return f"--set: {sentence}"
    with suppress(OSError, UnicodeDecodeError, yaml.YAMLError):
        root = yaml.compose(path.read_text(), Loader=yaml.SafeLoader)
        if line := _line(root, name[0].split(".")):
            return f"{path}:{line}: {sentence}"
    return sentence


def _expand(value: Any) -> Any:
    """Replace `${NAME}` and `${NAME:-default}` in every text of a nested value."""
    if isinstance(value, dict):
        return {key: _expand(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_expand(item) for item in value]
    if not isinstance(value, str) or "${" not in value:
        return value
    head, _, rest = value.partition("${")
    inside, closed, tail = rest.partition("}")
    name, has_default, default = inside.partition(":-")
    if not closed or (name not in os.environ and not has_default):
        raise BadInput(f"${{{inside}}}: set the environment variable {name}, or give a default")
    return head + (os.environ.get(name) or default) + _expand(tail)


def _apply(values: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise BadInput(f"--set {override}: write section.key=value")
    *parents, last = key.split(".")
    place: Any = values
    for parent in parents:
        place = place.setdefault(parent, {}) if isinstance(place, dict) else None
        if not isinstance(place, dict):
            raise BadInput(f"--set {override}: {parent!r} is not a section")
    try:
        place[last] = yaml.safe_load(text)
    except yaml.YAMLError:
        raise BadInput(f"--set {override}: the value is not YAML") from None


def _refuse_duplicates(path: Path, node: yaml.Node | None) -> None:
    """YAML keeps the last of two equal keys without a word; a setting must not vanish so."""
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if key.value in seen:
                raise BadInput(f"{path}:{key.start_mark.line + 1}: {key.value} is given twice")
            seen.add(key.value)
            _refuse_duplicates(path, value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _refuse_duplicates(path, value)


def _sentence(
    path: Path,
    kind: type[BaseModel],
    root: yaml.Node | None,
    overridden: set[str],
    error: ErrorDetails,
) -> str:
    keys = list(error["loc"])
    dotted = ".".join(str(k) for k in keys)
    line = _line(root, keys)
    place = f"{path}:{line}" if line and dotted not in overridden else str(path)
    if dotted in overridden:
        place = "--set"
    if error["type"] == "extra_forbidden":
        known = _names(_model_at(kind, keys[:-1]))
        near = difflib.get_close_matches(str(keys[-1]), known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(known)}"
        return f"{place}: {dotted} is not a setting; {hint}"
    if error["type"] == "missing":
        return f"{place}: {dotted} is missing; add it"
    return f"{place}: {dotted}: {error['msg']}"


def _line(node: yaml.Node | None, keys: Iterable[int | str]) -> int | None:
    """The line of the deepest key of the path that the file holds, counted from 1."""
    line = None
    for key in keys:
        if isinstance(node, yaml.MappingNode):
            found = next(((k, v) for k, v in node.value if k.value == str(key)), None)
            if found is None:
                continue  # a name that pydantic adds, such as a union's branch
            line, node = found[0].start_mark.line + 1, found[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(key, int):
            if key >= len(node.value):
                break
            node = node.value[key]
            line = node.start_mark.line + 1
    return line


def _names(model: type[BaseModel] | None) -> list[str]:
    return list(model.model_fields) if model else []


def _model_at(kind: type[BaseModel], keys: Sequence[int | str]) -> type[BaseModel] | None:
    """The settings class that a path of keys leads to, through lists and unions."""
    found: list[type[BaseModel]] = [kind]
    for key in keys:
        inside = [
            model
            for parent in found
            if str(key) in parent.model_fields
            for model in _models_in(parent.model_fields[str(key)].annotation)
        ]
        # A list index keeps the classes; a union's tag keeps those that bear it.
        tagged = [m for m in found if _tag(m) == key]
        found = inside or tagged or found
    return found[0] if found else None


def _tag(model: type[BaseModel]) -> Any:
    first = next(iter(model.model_fields.values()), None)
    return first.default if first else None


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [model for inner in typing.get_args(annotation) for model in _models_in(inner)]
