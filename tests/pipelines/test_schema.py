"""The schemas that editors read say the same as the typed settings do."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from lineage.code import ROOT
from pipelines.config import LifecycleConfig, load
from pipelines.schema import ENVIRONMENT, FOLDER, KINDS, as_text, comment_for, schema
from pipelines.settings import FORMS

SHIPPED = sorted(
    path for place in ("", "environments") for path in (ROOT / "configs" / place).glob("*.yaml")
)


@pytest.fixture(scope="module")
def lifecycle() -> Draft202012Validator:
    return Draft202012Validator(schema("lifecycle"))


def phantom() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "configs" / "phantom.yaml").read_text())


def put(values: dict[str, Any], dotted: str, value: Any) -> dict[str, Any]:
    *parents, last = dotted.split(".")
    place = values
    for parent in parents:
        place = place.setdefault(parent, {})
    place[last] = value
    return values


@pytest.mark.parametrize("kind", KINDS)
def test_the_file_is_what_the_settings_say(kind: str) -> None:
    made = as_text(kind)
    Draft202012Validator.check_schema(json.loads(made))
    path = f"configs/schema/{kind}.schema.json"
    stale = f"stale; run `lightbox schema {kind} -o {path}`"
    assert (ROOT / path).read_text() == made, stale


def patterns(node: Any) -> Iterator[str]:
    """Of texts, and of names in a mapping."""
    if isinstance(node, dict):
        yield from [node["pattern"]] if isinstance(node.get("pattern"), str) else []
        yield from node.get("patternProperties", {})
        node = list(node.values())
    for inner in node if isinstance(node, list) else []:
        yield from patterns(inner)


def test_every_pattern_is_told_in_words() -> None:
    asked = {pattern for kind in KINDS for pattern in patterns(schema(kind))}
    assert asked - set(patterns(ENVIRONMENT)) == FORMS.keys()


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.name)
def test_every_shipped_file_names_its_schema_and_fits_it(path: Path) -> None:
    first, text = path.read_text().split("\n", 1)
    kind = path.stem if path.parent.name == "environments" else "lifecycle"
    assert first + "\n" == comment_for(path, kind)
    named = path.parent / first.partition("$schema=")[2]
    assert named.resolve() == FOLDER / f"{kind}.schema.json"
    faults = Draft202012Validator(json.loads(named.read_text())).iter_errors(yaml.safe_load(text))
    assert [fault.message for fault in faults] == []


def test_all_defaults_written_out_fit(lifecycle) -> None:
    settings = load(ROOT / "configs" / "phantom.yaml")
    assert lifecycle.is_valid(settings.model_dump(mode="json"))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("trainin", {}),
        ("training.lerning_rate", 0.1),
        ("ingestion.labels.colum", "x"),
        ("gating.rules", [{"rule": "lower_bound", "metric": "auroc", "at_leat": 0.8}]),
        ("gating.rules", [{"metric": "auroc", "at_least": 0.8}]),
        ("gating.rules", [{"rule": "lower_bound", "metric": "auroc", "at_least": True}]),
        ("training.device", "gpu"),
        ("training.max_epochs", 0),
        ("training.max_epochs", "many"),
        ("registration.name", "-"),
    ],
)
def test_what_the_settings_refuse_is_marked(lifecycle, key: str, value: Any) -> None:
    wrong = put(phantom(), key, value)
    assert not lifecycle.is_valid(wrong)
    with pytest.raises(ValueError, match="validation error"):
        LifecycleConfig.model_validate(wrong)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("training.max_epochs", "${EPOCHS:-3}"),
        ("training.device", "${DEVICE:-cpu}"),
        ("registration.name", "${MODEL:-phantom}"),
        ("splitting.fractions.train", "${SHARE}"),
        ("gating.rules", [{"rule": "upper_bound", "at_most": "${WORST:-0.2}"}]),
        ("retraining", {"minimum_new_patients": 3}),  # its labels are those of ingestion
    ],
)
def test_what_is_read_otherwise_later_is_not_marked(lifecycle, key: str, value: Any) -> None:
    assert lifecycle.is_valid(put(phantom(), key, value))


def test_comments_become_notes() -> None:
    made = schema("lifecycle")["$defs"]
    share = made["ValidationConfig"]["properties"]["maximum_set_aside_share"]
    assert share["description"] == "of the files found"
    threads = made["TrainingConfig"]["properties"]["threads"]["description"]
    assert threads.startswith("Sums on the CPU") and threads.endswith("by spinning.")
    image = schema("kubeflow")["properties"]["image"]
    assert image["description"] == "Holds this project; pinned by digest."


def test_a_file_elsewhere_names_its_schema_by_an_address(tmp_path: Path) -> None:
    line = comment_for(tmp_path / "own.yaml")
    assert (
        line == f"# yaml-language-server: $schema={(FOLDER / 'lifecycle.schema.json').as_uri()}\n"
    )
    assert yaml.safe_load(line + "a: 1") == {"a": 1}
