"""What is told of a difference agrees with the keys themselves."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict

from components.contract import Output, component
from lineage.digest import digest
from pipelines.backends import keys, local
from pipelines.backends.plan import REUSE, RUN, plan
from pipelines.graph import Pipeline, Step

checked: list[dict[str, Any]] = []


class Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    args: dict[str, Any]


@component(check=lambda config: checked.append(config.args))
def builds(config: Settings, words: Output) -> None:
    """Take whatever arguments."""
    (words / "words.txt").write_text(repr(config.args))


def toy(args: dict[str, Any]) -> Pipeline:
    return Pipeline("toy", [Step(builds, Settings(args=args))])


def nowhere(source: object) -> Path:
    raise AssertionError("it has no sources")


PAIRS = [
    ({"x": 1}, {"x": 1.0}, "args.x 1 → 1.0"),
    ({"x": 1}, {"x": True}, "args.x 1 → True"),
    ({"x": 0.0}, {"x": -0.0}, "args.x 0.0 → -0.0"),
    ({"x": 1}, {"x": "1"}, 'args.x 1 → "1"'),
    ({"x": [1]}, {"x": [True]}, "args.x [1] → [True]"),
    ({}, {"x": None}, "config changed"),
    ({}, {"x": {}}, "config changed"),
    ({"a.b": 1}, {"a": {"b": 1}}, "config changed"),
]


@pytest.mark.parametrize(("before", "after", "told"), PAIRS, ids=lambda p: str(p))
def test_what_changes_a_key_is_told_once(home, before, after, told) -> None:
    """Python calls some of them equal; JSON, and so the key, does not."""
    local.run(toy(before), home, nowhere)
    [planned] = plan(toy(after), home, nowhere)
    assert (planned.action, planned.why) == (RUN, told)
    [step] = local.run(toy(after), home, nowhere).steps
    assert (step.state, step.why) == ("ran", told)
    assert plan(toy(after), home, nowhere)[0].action == REUSE
    assert local.run(toy(after), home, nowhere).steps[0].why == "unchanged"


def test_a_setting_that_only_looks_equal_is_checked_anew(home) -> None:
    checked.clear()
    for args in ({"x": 1}, {"x": 1}, {"x": True}):
        local.run(toy(args), home, nowhere)
    assert [repr(args) for args in checked] == ["{'x': 1}", "{'x': True}"]


@pytest.mark.parametrize(("one", "other"), [pair[:2] for pair in PAIRS])
def test_same_is_what_the_key_says(one, other) -> None:
    assert keys.same(one, one)
    assert not keys.same(one, other)
    assert digest("step", one) != digest("step", other)
