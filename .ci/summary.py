"""The page that CI shows of a run: Markdown made from the report.json of `lightbox submit`.

`--waiting` prints nothing but the MODEL:VERSION that waits for a person's approval, if one does.
"""

import argparse
import json
import re
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

OUTCOMES = {
    0: "✅ done",
    1: "❌ a step failed",
    2: "❌ bad input",
    3: "⛔ refused by the gate",
    4: "⏳ waits for approval",
    5: "↩️ the canary was rolled back",
}


def summary(report: Mapping[str, Any]) -> str:
    """Outcome, the gate's verdict, steps, and what the run was made of."""
    outcome = OUTCOMES.get(report["exit_code"], f"❌ {_text(report['outcome'])}")
    lines = [f"## {outcome}: {_text(report['pipeline'])}"]
    if report["reason"]:
        lines.append(_text(report["reason"]))
    if gate := report["gate"]:
        verdict = "passed" if gate["passed"] else "did not pass"
        lines.append(f"**Gate:** {verdict}. {_text(gate['reason'])}".rstrip())
    steps = [
        f"| {_text(step['name'])} | {_text(step['state'])} | {step['seconds']:.0f} s "
        f"| {_text(step['why'] or '')} |"
        for step in report["steps"]
    ]
    lines.append("\n".join(["| step | state | took | why |", "|---|---|---:|---|", *steps]))
    told = {
        "run": report["run"],
        "engine": report["engine"],
        "there": report["engine_id"],
        "commit": report["commit"],
        "uncommitted work": report["patch"],
        "settings": report["config"],
        "changed": " ".join(report["overrides"]),
        "settings digest": report["config_digest"],
        **{f"source {name}": digest for name, digest in report["sources"].items()},
    }
    rows = [f"| {_text(key)} | {_code(value)} |" for key, value in told.items() if value]
    lines.append("\n".join(["| | |", "|---|---|", *rows]))
    return "\n\n".join(lines) + "\n"


def _text(words: object) -> str:
    """Words of an engine or of a file, which must not become markup."""
    plain = escape(" ".join(str(words).split()), quote=False)
    for sign in "\\`*_[]|":
        plain = plain.replace(sign, f"\\{sign}")
    return plain


def _code(words: object) -> str:
    plain = escape(" ".join(str(words).split()), quote=False).replace("|", "&#124;")
    return f"<code>{plain}</code>"


def waiting(report: Mapping[str, Any]) -> str:
    """The model that waits for approval, as the reason of the run names it."""
    named = re.search(r"lightbox approve (\S+:\d+)", report["reason"])
    return named[1] if named and report["exit_code"] == 4 else ""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("report", type=Path)
    parser.add_argument("--waiting", action="store_true")
    given = parser.parse_args()
    if not given.report.exists():
        print("## no report\n\nNo run was started, or it could not be followed: the log says why.")
    else:
        told = json.loads(given.report.read_text())
        print(waiting(told) if given.waiting else summary(told), end="")
