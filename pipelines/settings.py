"""Read settings from YAML into a typed object, with errors that show file, line and the way out."""

import difflib
import math
import os
import re
import types
import typing
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import date, datetime
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from lineage.errors import BadInput

Settings = TypeVar("Settings", bound=BaseModel)
Keys = tuple[int | str, ...]

MOST_VALUES = 100_000  # aliases of aliases of aliases would fill the memory
# What YAML's own words mean for who wrote the line.
YAML_HINTS = {
    "<block end>": "a line is indented otherwise than the lines beside it",
    "mapping values": "a second colon in a line (quote such text), or a line indented too far",
    "expected ':'": "a name without its colon",
    "'\\t'": "a tab; YAML wants spaces",
    "',' or": "a bracket is not closed, or a comma is missing",
    "end of stream": "a quote is not closed",
}
# What pydantic's kinds of faults mean, by how their names begin.
WORDS = {
    "value_error": "{error}",
    "literal_error": "expected {expected}",
    "int_": "expected a whole number",
    "float_": "expected a number",
    "finite_": "expected a finite number",
    "bool_": "expected true or false",
    "string_type": "expected text; put it in quotes",
    "string_too_short": "expected text of {min_length} or more characters",
    "list_": "expected a list such as [a, b]",
    "tuple_": "expected a list such as [a, b]",
    "too_short": "expected {min_length} or more items",
    "too_long": "expected no more than {max_length} items",
    "dict_": "expected names and values such as {{a: 1}}",
    "model_": "expected names and values such as {{a: 1}}",
    "greater_than_equal": "expected {ge:.10g} or more",
    "greater_than": "expected more than {gt:.10g}",
    "less_than_equal": "expected {le:.10g} or less",
    "less_than": "expected less than {lt:.10g}",
    "union_tag_not_found": "{discriminator} is missing; add it",
}
# What each pattern that a text must match allows, for who does not read regular expressions.
FORMS = {
    r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$": "up to 100 letters A to Z or a to z, digits, dots, "
    "hyphens and underscores, a letter or digit first",
    r"^[a-z0-9-]+$": "small letters a to z, digits and hyphens",
    r"^expect_[a-z_]+$": "the type of an expectation, such as expect_column_values_to_be_in_set",
    r"^[^\W_]+$": "one word of letters and digits",
    r"^[\x20-\x5b\x5d-\x7e]{1,64}$": "a private creator as files have it: up to 64 characters of "
    "ASCII, no backslash",
    r"^\([0-9A-Fa-f]{3}[13579BDFbdf],xx[0-9A-Fa-f]{2}\)$": "an odd group and a private block's "
    "element in hexadecimal digits, such as (0019,xx0C)",
    r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$": "a bucket's name alone: 3 to 63 small letters, digits, "
    "dots and hyphens, a letter or digit first and last",
    r"^$|^(s3|minio)://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$": "s3:// or minio:// and a bucket's name "
    "alone, or nothing",
    r"^arn:aws[a-z-]*:iam::\d{12}:role/.+$": "the ARN of an IAM role, such as "
    "arn:aws:iam::123456789012:role/NAME",
    r"^$|^arn:aws[a-z-]*:iam::\d{12}:role/.+$": "the ARN of an IAM role, such as "
    "arn:aws:iam::123456789012:role/NAME, or nothing",
    r"^arn:aws[a-z-]*:secretsmanager:[a-z0-9-]+:\d{12}:secret:.+$": "the ARN of a secret, such as "
    "arn:aws:secretsmanager:eu-central-1:123456789012:secret:NAME",
}


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
        if next(islice(_nodes(root), MOST_VALUES, None), None):
            many = f"more than {MOST_VALUES:,} values (what an alias names counts each time)"
            raise BadInput(f"{path}: {many}")
        values = yaml.safe_load(text)
        if not isinstance(values, dict):
            raise BadInput(f"{path}: expected sections such as {_names(kind)[:3]}")
        _refuse_duplicates(path, root)
        values = _expand(values)
        for override in overrides:
            _apply(values, override)
        _refuse(path, root, overrides, _unfit(values, kind))
    except BadInput:
        raise
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise BadInput(f"{path}{line}: {_yaml_words(error)}") from None
    except RecursionError:
        raise BadInput(f"{path}: nested too deeply, or within itself") from None
    except ValueError as error:  # 2024-02-30
        raise BadInput(f"{path}: a date or number that cannot be ({error}); quote text") from None
    try:
        settings = kind.model_validate(values)
    except ValidationError as error:
        faults = _first_told(values, error.errors(include_url=False))
        lines = [_sentence(path, kind, root, overrides, fault) for fault in faults]
        raise BadInput("\n".join(lines)) from None
    # Again, for text that was read as a number: "nan".
    _refuse(path, root, overrides, _unfit(settings.model_dump(mode="json")))
    return settings


def placed(path: Path, overrides: Sequence[str], sentence: str) -> str:
    """Put file and line before a sentence that begins with a setting, `training.network.name: …`.

    Steps know their settings by name only; a person looks for the line, or for the `--set`.
    """
    name = re.match(r"[a-z_]+(?:\.\w+)+", sentence)
    if not name:
        return sentence
    root = None
    with suppress(OSError, UnicodeDecodeError, yaml.YAMLError):
        root = yaml.compose(path.read_text(), Loader=yaml.SafeLoader)
    place = _place(path, root, overrides, name[0].split("."))
    return sentence if place == str(path) else f"{place}: {sentence}"


def _place(
    path: Path, root: yaml.Node | None, overrides: Sequence[str], keys: Sequence[int | str]
) -> str:
    """Where a setting was given its value: a line of the file, a `--set`, or both."""
    dotted = ".".join(str(key) for key in keys)
    names = [override.partition("=")[0] for override in overrides]
    if any(f"{dotted}.".startswith(f"{name}.") for name in names):
        return "--set"
    line = _line(root, keys)
    if not any(name.startswith(f"{dotted}.") for name in names):
        return f"{path}:{line}" if line else str(path)
    return f"{path}:{line} with --set" if line else "--set"


def _refuse(
    path: Path,
    root: yaml.Node | None,
    overrides: Sequence[str],
    faults: Iterable[tuple[Keys, str]],
) -> None:
    told = [
        f"{_place(path, root, overrides, keys)}: {'.'.join(map(str, keys))}: {words}"
        for keys, words in faults
    ]
    if told:
        raise BadInput("\n".join(told))


def _unfit(
    value: Any, kind: type[BaseModel] | None = None, keys: Keys = ()
) -> Iterator[tuple[Keys, str]]:
    """What JSON cannot say, or says of something else too: different settings must never share the
    key under which a result is found. A date may stand where `kind` has one."""
    match value:
        case dict():
            for name, item in value.items():
                if isinstance(name, str):
                    yield from _unfit(item, kind, (*keys, name))
                else:
                    yield (*keys, str(name)), "this name is not text; put it in quotes"
        case list():
            for index, item in enumerate(value):
                yield from _unfit(item, kind, (*keys, index))
        case float() if not math.isfinite(value):
            yield keys, "expected a finite number"
        case None | str() | int() | float():
            pass
        case date() if not isinstance(value, datetime) and _is_date(kind, keys):
            pass
        case _:
            told = f"YAML reads this as a {type(value).__name__}, which no setting can be"
            yield keys, f"{told}; put text in quotes"


def _yaml_words(error: Exception) -> str:
    problem = getattr(error, "problem", None) or "not YAML"
    hints = (hint for mark, hint in YAML_HINTS.items() if mark in problem)
    hint = next(hints, None)
    return f"{hint} (YAML says: {problem})" if hint else problem


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
    except (yaml.YAMLError, ValueError):  # 2024-02-30
        raise BadInput(f"--set {override}: the value is not YAML") from None


def _nodes(node: yaml.Node | None) -> Iterator[yaml.Node]:
    """A node and all below it, again for each alias."""
    if node:
        yield node
        for below in node.value if isinstance(node, yaml.CollectionNode) else ():
            for each in below if isinstance(below, tuple) else (below,):
                yield from _nodes(each)


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
    overrides: Sequence[str],
    error: ErrorDetails,
) -> str:
    keys = [key for key in error["loc"] if key != "[key]"]  # pydantic's for a name, not its value
    words = _words(error)
    if not keys:  # of the file as a whole: such a sentence names its setting itself
        told = placed(path, overrides, words)
        return told if told != words else f"{path}: {words}"
    dotted = ".".join(str(key) for key in keys)
    place = _place(path, root, overrides, keys)
    if error["type"] == "extra_forbidden":
        return f"{place}: {dotted} is not a setting; {_way_out(kind, keys)}"
    if error["type"] == "missing":
        return f"{place}: {dotted} is missing; add it"
    return f"{place}: {dotted}: {words}"


def _first_told(values: dict[str, Any], faults: list[ErrorDetails]) -> list[ErrorDetails]:
    """All faults but those of a section that nobody wrote, and that was copied from another one."""
    kept: list[ErrorDetails] = []
    told = set()
    for fault in faults:
        section, *within = fault["loc"] or ("",)
        what = (tuple(within), fault["msg"])
        given = values.get(str(section), {})
        copied = within and isinstance(given, dict) and within[0] not in given
        if not (copied and what in told):
            kept.append(fault)
        told.add(what)
    return kept


def _way_out(kind: type[BaseModel], keys: Sequence[int | str]) -> str:
    """For a setting that is not known: one that is, here or in another section."""
    name, known = str(keys[-1]), _names(_model_at(kind, keys[:-1]))
    near = difflib.get_close_matches(name, known, n=1)
    if not near:
        leaves = list(_leaves(kind))
        lasts = difflib.get_close_matches(name, {leaf.rpartition(".")[2] for leaf in leaves}, n=1)
        near = [leaf for leaf in leaves if leaf.rpartition(".")[2] in lasts]
    if near:
        return f"did you mean {' or '.join(map(repr, near))}?"
    return f"known here: {', '.join(known)}"


def _words(error: ErrorDetails) -> str:
    """What pydantic found, as we would say it."""
    about = error.get("ctx", {})
    if error["type"] == "union_tag_invalid":
        known = re.findall(r"'([^']+)'", about["expected_tags"])
        near = difflib.get_close_matches(about["tag"], known, n=1)
        way = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(known)}"
        return f"there is no {about['discriminator']} {about['tag']!r}; {way}"
    if form := FORMS.get(about.get("pattern", "")):
        return f"expected {form}"
    ours = (words for kind, words in WORDS.items() if error["type"].startswith(kind))
    words = next(ours, None)
    return words.format(**about) if words else error["msg"]


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


def _leaves(model: type[BaseModel], above: str = "") -> Iterator[str]:
    """The dotted names of all settings that have one; items of lists have none."""
    for name, field in model.model_fields.items():
        yield f"{above}{name}"
        if typing.get_origin(field.annotation) not in (tuple, list):
            for inner in _models_in(field.annotation):
                yield from _leaves(inner, f"{above}{name}.")


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


def _is_date(kind: type[BaseModel] | None, keys: Keys) -> bool:
    model = _model_at(kind, keys[:-1]) if kind else None
    field = model.model_fields.get(str(keys[-1])) if model else None
    return field is not None and date in (field.annotation, *typing.get_args(field.annotation))


def _tag(model: type[BaseModel]) -> Any:
    first = next(iter(model.model_fields.values()), None)
    return first.default if first else None


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [model for inner in typing.get_args(annotation) for model in _models_in(inner)]
