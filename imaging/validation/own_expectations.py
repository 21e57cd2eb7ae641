"""A user's own demands on the manifest, in Great Expectations' terms, checked before a run."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from imaging.config import Expectation, ValidationConfig
from imaging.manifest import schema
from imaging.validation import rules
from lineage import telemetry
from lineage.errors import BadInput

MOST_NAMED = 40  # in a sentence
# What pydantic's types of faults ask for. That a dictionary would do is Great Expectations' own.
EXPECTED = {
    "float": "a number",
    "integer": "a whole number",
    "bool": "true or false",
    "str": "text",
    "list": "a list such as [a, b]",
    "date": "a date",
}
# Of Great Expectations' own: those that ask a database, or that name what is ours to set.
DATABASE_ONLY = ("query", "other_table", "unexpected_rows")
OURS = (
    *("id", "meta", "notes", "description", "result_format", "catch_exceptions", "batch_id"),
    *("rendered_content", "severity", "windows"),
)


def check_settings(config: ValidationConfig) -> None:
    """Refuse what only the step itself would stumble over, before anything runs.

    Raises:
        BadInput: An expectation, an argument, a column or a rule is not known; with the nearest.
    """
    for name in config.severity:
        if name not in rules.SEVERITY:
            raise BadInput(
                f"validation.severity.{name}: there is no such rule{nearest(name, rules.SEVERITY)}"
            )
    own(config.expectations)


def own(expectations: Sequence[Expectation]) -> list[Any]:
    """Great Expectations' objects for a user's own demands.

    Raises:
        BadInput: As for `check_settings`.
    """
    if not expectations:
        return []
    telemetry.off()
    from great_expectations.expectations import core

    kinds = {
        str(getattr(kind, "expectation_type", "")): kind
        for name in dir(core)
        if name.startswith("Expect") and isinstance(kind := getattr(core, name), type)
    }
    kinds = {n: k for n, k in kinds.items() if n and not any(word in n for word in DATABASE_ONLY)}
    return [_own(e, f"validation.expectations.{i}", kinds) for i, e in enumerate(expectations)]


def nearest(name: str, known: Iterable[str]) -> str:
    """The way out of a misspelt name."""
    names = list(known)
    begun = [n for n in names if name and n.startswith(name)]
    if close := begun or difflib.get_close_matches(name, names, n=1, cutoff=0.6):
        return f"; did you mean {close[0]!r}?"
    return f"; there are {', '.join(sorted(names))}" if len(names) <= MOST_NAMED else ""


def _own(expectation: Expectation, place: str, kinds: Mapping[str, Any]) -> Any:
    kind = kinds.get(expectation.expectation)
    if kind is None:
        raise BadInput(
            f"{place}.expectation: Great Expectations has no {expectation.expectation!r} for a "
            f"table of files{nearest(expectation.expectation, kinds)}"
        )
    arguments = expectation.model_extra or {}
    known = [name for name in kind.__fields__ if name not in OURS]
    for name, value in arguments.items():
        if name not in known:
            raise BadInput(
                f"{place}.{name}: {expectation.expectation} has no such argument"
                f"{nearest(name, known)}"
            )
        if name.startswith("column") and name != "column_index":
            columns = schema().names
            for column in value if isinstance(value, list) else [value]:
                if column not in columns:
                    raise BadInput(
                        f"{place}.{name}: the manifest has no column {column!r}"
                        f"{nearest(str(column), columns)}"
                    )
        if name == "regex" and (why := _no_pattern(value)):
            raise BadInput(f"{place}.{name}: no regular expression ({why})")
    try:
        return kind(
            **arguments,
            notes=expectation.why or "asked for in validation.expectations",
            meta={"rule": "own", "place": place},
            severity=rules.in_their_words(expectation.severity),
        )
    except ValueError as error:  # pydantic's, of the release that they use
        faults = error.errors() if hasattr(error, "errors") else []
        raise BadInput(_told(place, faults) or f"{place}: {error}") from None


def _told(place: str, faults: Sequence[Mapping[str, Any]]) -> str:
    """One sentence of the first faulty argument, which may be at odds with each of several types.

    What is wrong with all of them together (`__root__`) follows from it, or stands alone.
    """
    name = next((f["loc"][0] for f in faults), "")
    found = [f for f in faults if f["loc"][0] == name]
    kinds = [EXPECTED[kind] for f in found if (kind := f["type"].rpartition(".")[2]) in EXPECTED]
    if not found or name == "__root__":
        return "".join(f"{place}: {f['msg']}" for f in found[:1])
    if kinds:
        return f"{place}.{name}: expected {' or '.join(dict.fromkeys(kinds))}"
    if found[0]["type"] == "value_error.missing":
        return f"{place}.{name} is missing; add it"
    return f"{place}.{name}: {found[0]['msg'].replace('ensure this value is', 'must be')}"


def _no_pattern(value: Any) -> str:
    """Why it is no regular expression; of another type, pydantic says so."""
    try:
        re.compile(value if isinstance(value, str) else "")
    except re.error as error:
        return str(error)
    return ""
