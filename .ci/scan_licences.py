"""Fail on an installed package whose licence .ci/licences.toml does not allow.

What counts is what a package declares: its SPDX expression, else its classifiers, else its
`License` field. A package that declares none, or one that is not allowed, is refused unless it is
an exception by name, with the licence that was read and a reason.
"""

import argparse
import re
import sys
import tomllib
from collections.abc import Sequence
from email.message import Message
from importlib.metadata import distributions
from pathlib import Path

from packaging.utils import canonicalize_name

HERE = Path(__file__).parent


def main(arguments: Sequence[str] | None = None) -> int:
    """Print each package that is refused; the exit code says whether there are any."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="*", help="site-packages folders; by default one's own")
    parser.add_argument("--rules", type=Path, default=HERE / "licences.toml")
    given = parser.parse_args(arguments)
    rules = tomllib.loads(given.rules.read_text())

    installed = {}
    for found in distributions(path=given.folders or sys.path):
        name = canonicalize_name(found.metadata["Name"])
        # One folder may hide another's package, as an import would have it.
        installed.setdefault(name, declared(found.metadata))
    installed.pop("lightbox-mlops", None)
    bad = 0
    for name, licence in sorted(installed.items()):
        exception = rules["exceptions"].get(name)
        if exception and exception["licence"] == licence:
            continue
        if exception or not is_allowed(licence, set(rules["allowed"])):
            bad += 1
            print(f"{name}: {licence or 'declares no licence'}, which is not allowed")
    if not bad:
        exceptions = sorted(rules["exceptions"].keys() & installed.keys())
        print(f"licences: {len(installed)} packages; by exception {', '.join(exceptions)}")
    return min(bad, 1)


def declared(metadata: Message) -> str:
    """A package's licence, as an SPDX expression or in the words of its classifiers."""
    if expression := metadata.get("License-Expression"):
        return str(expression)
    classifiers = [line.split(" :: ") for line in metadata.get_all("Classifier", [])]
    ends = {parts[-1] for parts in classifiers if parts[0] == "License"} - {"OSI Approved"}
    if ends:
        return " AND ".join(sorted(ends))  # or OR, which classifiers cannot say: the strict reading
    return str(metadata.get("License") or "").strip().partition("\n")[0]


def is_allowed(licence: str, allowed: set[str]) -> bool:
    """Whether one may choose a way through an SPDX expression that needs allowed licences only."""
    if licence in allowed:
        return True
    # Within parentheses each licence is asked for, also where one would do.
    ways = licence.split(" OR ") if "(" not in licence else [re.sub(r"[()]| OR ", " AND ", licence)]
    needed = [[part.strip() for part in way.split(" AND ") if part.strip()] for way in ways]
    return any(parts and all(part in allowed for part in parts) for parts in needed)


if __name__ == "__main__":
    sys.exit(main())
