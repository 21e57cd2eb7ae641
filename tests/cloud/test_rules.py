"""Our own rules: what is shipped keeps them all, and each breach is found by its rule."""

import json
import re
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = Path(__file__).parent / "fixtures"
POLICIES = ROOT / "configs" / "policies"
GOOD = [ROOT / "configs" / "aws", ROOT / "configs" / "kubernetes", FIXTURES / "endpoint.yaml"]
BREACHES = [
    (ROOT / file, breach)
    for file, breaches in yaml.safe_load((FIXTURES / "breaches.yaml").read_text()).items()
    for breach in breaches
]
WRITTEN_IN_PYTHON = {
    "action_exists",
    "condition_key_exists",
    "manifest_fits_its_schema",
    "star_only_where_nothing_else_fits",
}


@pytest.fixture(scope="module")
def found(checker, tmp_path_factory) -> dict[str, list[dict[str, str]]]:
    """What one run finds in what is good (""), and in each breach, by its number."""
    folder = tmp_path_factory.mktemp("breaches")
    for number, (file, breach) in enumerate(BREACHES):
        place = folder / str(number)
        if file.parent.name == "kubernetes":  # manifests are judged together
            shutil.copytree(file.parent, place)
        else:
            place.mkdir()
        text = file.read_text()
        assert breach["old"] in text, f"{file.name} has no {breach['old']!r} to break"
        (place / file.name).write_text(text.replace(breach["old"], breach.get("new", ""), 1))
    ran = checker("python", POLICIES / "check.py", "--json", *GOOD, *folder.iterdir())
    assert ran.returncode == 1, ran.stderr

    by_number = defaultdict(list)
    for finding in json.loads(ran.stdout)["findings"]:
        place = Path(finding["file"])
        inside = place.is_relative_to(folder)
        by_number[place.relative_to(folder).parts[0] if inside else ""].append(finding)
    return by_number


def test_what_is_shipped_keeps_every_rule(found) -> None:
    assert found[""] == []


@pytest.mark.parametrize("number", range(len(BREACHES)), ids=lambda n: BREACHES[n][1]["rule"])
def test_a_breach_is_found_by_its_rule_and_no_other(found, number: int) -> None:
    assert {finding["rule"] for finding in found[str(number)]} == {BREACHES[number][1]["rule"]}


def test_every_rule_has_something_to_judge_and_a_breach(checker) -> None:
    text = "".join(path.read_text() for path in POLICIES.glob("*.guard"))
    rules = WRITTEN_IN_PYTHON | set(re.findall(r"^rule (\w+)", text, re.MULTILINE))
    assert {breach["rule"] for _, breach in BREACHES} == rules

    ran = checker("python", POLICIES / "check.py", "--json", *GOOD)
    assert ran.returncode == 0, ran.stdout
    assert set(json.loads(ran.stdout)["judged"]) == rules


def test_a_finding_names_the_place_and_the_way_out(found) -> None:
    number = [b["rule"] for _, b in BREACHES].index("bucket_keeps_versions")
    (finding,) = found[str(number)]
    assert finding["message"] == "Versioning must be enabled"
    assert finding["place"].startswith("/Resources/Data/Properties/VersioningConfiguration")


def test_a_report_too_long_for_its_library_is_still_a_finding(checker, tmp_path) -> None:
    many: dict[str, Any] = {
        f"Bucket{n}": {"Type": "AWS::S3::Bucket", "Properties": {}} for n in range(200)
    }
    (tmp_path / "many.yaml").write_text(yaml.safe_dump({"Description": "", "Resources": many}))
    ran = checker("python", POLICIES / "check.py", "--json", tmp_path)
    places = [
        f["place"]
        for f in json.loads(ran.stdout)["findings"]
        if f["rule"] == "bucket_keeps_versions"
    ]
    assert len(places) == 200
