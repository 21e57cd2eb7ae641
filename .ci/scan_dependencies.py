"""Fail on a pinned package with a known flaw: pins against .ci/advisories.json, without network.

The advisories are OSV records (https://ossf.github.io/osv-schema/). A flaw that cannot be mended
is accepted by name in .ci/advisories_accepted.toml, with a reason and a last day. Where the network
is open, `--add AUDIT.json` takes over what `pip-audit --strict --format json` found.
"""

import argparse
import json
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name
from packaging.version import Version

HERE = Path(__file__).parent
STALE_DAYS = 30


def main(arguments: Sequence[str] | None = None) -> int:
    """Print each finding; the exit code says whether there are any that nobody accepted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("locks", nargs="+", type=Path)
    parser.add_argument("--advisories", type=Path, default=HERE / "advisories.json")
    parser.add_argument("--accepted", type=Path, default=HERE / "advisories_accepted.toml")
    parser.add_argument("--add", type=Path, metavar="AUDIT.json")
    given = parser.parse_args(arguments)
    today = datetime.now(UTC).date()
    known = json.loads(given.advisories.read_text())
    if given.add:
        known = added(known, json.loads(given.add.read_text()), today)
        given.advisories.write_text(json.dumps(known, indent=2) + "\n")
    accepted = tomllib.loads(given.accepted.read_text())

    age_days = (today - date.fromisoformat(known["retrieved"])).days
    if age_days > STALE_DAYS:
        print(f"{given.advisories.name} is {age_days} days old; newer flaws are not in it")
    pins = {pin for lock in given.locks for pin in pinned(lock.read_text())}
    bad, met = 0, set()
    for name, version, advisory in found(pins, known["advisories"]):
        names = {advisory["id"], *advisory.get("aliases", [])}
        met |= names
        decision = next((accepted[one] for one in sorted(names) if one in accepted), None)
        if decision and decision["until"] >= today:
            continue
        bad += 1
        why = f"accepted until {decision['until']}" if decision else "not accepted"
        print(f"{name} {version}: {advisory['id']}, {advisory['summary']} ({why})")
    for name in sorted(accepted.keys() - met):
        bad += 1
        print(f"{given.accepted.name}: {name} is accepted, but nothing has it; remove it")
    if not bad:
        count, told = len(known["advisories"]), f"{len(accepted)} flaws accepted by name"
        print(f"dependencies: {len(pins)} pins, {count} advisories; {told}, no other")
    return min(bad, 1)


def pinned(lock: str) -> Iterator[tuple[str, str]]:
    """Name and version of each `name==version` line."""
    for match in re.finditer(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^\s;\\]+)", lock, re.MULTILINE):
        yield canonicalize_name(match[1]), match[2]


def found(
    pins: set[tuple[str, str]], advisories: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Each pin that an advisory affects."""
    for name, version in sorted(pins):
        for advisory in advisories:
            for affected in advisory["affected"]:
                package = affected["package"]
                same = canonicalize_name(package["name"]) == name
                if package["ecosystem"] == "PyPI" and same and is_affected(version, affected):
                    yield name, version, advisory
                    break


def is_affected(version: str, affected: Mapping[str, Any]) -> bool:
    """The evaluation that the OSV schema describes: a listed version, or within a range."""
    if version in affected.get("versions", []):
        return True
    this = Version(version)
    for spanned in affected.get("ranges", []):
        if spanned["type"] != "ECOSYSTEM":
            continue
        inside = False
        events = [next(iter(event.items())) for event in spanned["events"]]
        for kind, bound in sorted(events, key=lambda event: (Version(event[1]), event[0])):
            if kind == "introduced" and this >= Version(bound):
                inside = True
            if (kind == "fixed" and this >= Version(bound)) or (
                kind == "last_affected" and this > Version(bound)
            ):
                inside = False
        if inside:
            return True
    return False


def added(known: Mapping[str, Any], audit: Mapping[str, Any], today: date) -> dict[str, Any]:
    """The advisories with those of a pip-audit report, retrieved today."""
    if skipped := [one["name"] for one in audit["dependencies"] if "skip_reason" in one]:
        sys.exit(f"pip-audit could not look up {len(skipped)} packages, {skipped[0]} first")
    by_id = {one["id"]: one for one in known["advisories"]}
    for package in audit["dependencies"]:
        for flaw in package["vulns"]:
            record = by_id.setdefault(
                flaw["id"],
                {
                    "id": flaw["id"],
                    "aliases": flaw["aliases"],
                    "summary": flaw["description"].strip().splitlines()[0][:120],
                    "affected": [],
                },
            )
            affected = {
                "package": {"ecosystem": "PyPI", "name": package["name"]},
                "versions": [package["version"]],
            }
            if affected not in record["affected"]:
                record["affected"].append(affected)
    return {"retrieved": today.isoformat(), "advisories": [by_id[key] for key in sorted(by_id)]}


if __name__ == "__main__":
    sys.exit(main())
