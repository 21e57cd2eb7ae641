"""What validation found: validation.json, and the same as a page that needs no network."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from imaging.validation.data_docs import STYLE
from imaging.validation.expectations import (
    DATA_DOCS,
    FAILED,
    NOTHING,
    PASSED,
    Outcome,
    arguments,
    failures,
)
from lineage.files import write_json

VALIDATION = "validation.json"
PAGE = "validation.html"
WORDS = {  # of an outcome and a severity: in which order, which style, what is said
    (FAILED, "stop"): (0, "failed", "failed"),
    (FAILED, "warn"): (1, "warning", "warning"),
    (PASSED, "stop"): (2, "passed", "passed"),
    (PASSED, "warn"): (2, "passed", "passed"),
    (NOTHING, "stop"): (3, "nothing", NOTHING),
    (NOTHING, "warn"): (3, "nothing", NOTHING),
}


def write_report(
    outcomes: Sequence[Outcome],
    images: int,
    report: Path,
    *,
    warnings: Sequence[str] = (),
    faults: Sequence[str] = (),
    facts: Mapping[str, Any] | None = None,
    sections: Sequence[str] = (),
) -> None:
    """Write `validation.json`, and the same as one page that needs no network.

    Args:
        outcomes: Of `check`.
        images: How many there are.
        report: Folder.
        warnings: What else is warned of; failed expectations of severity warn are counted here.
        faults: What else stops the run.
        facts: What else validation.json says, by name.
        sections: HTML, below the expectations.
    """
    stopping = [*failures(outcomes), *faults]
    warned = [*failures(outcomes, "warn"), *warnings]
    told = {
        "passed": not stopping,
        "warnings": warned,
        "images": images,
        "expectations": outcomes,
        **(facts or {}),
    }
    write_json(report / VALIDATION, told)
    (report / PAGE).write_text(_page(outcomes, images, len(stopping), warned, sections))


def _page(
    outcomes: Sequence[Outcome],
    images: int,
    stopping: int,
    warnings: Sequence[str],
    sections: Sequence[str],
) -> str:
    title = f"Validation {'failed' if stopping else 'passed'}"
    if warnings:
        title += f", with {len(warnings)} warning{'s' if len(warnings) > 1 else ''}"
    unasked = sum(o["outcome"] == NOTHING for o in outcomes)
    rows = []
    for o in sorted(outcomes, key=lambda o: WORDS[o["outcome"], o["severity"]][0]):
        _, style, word = WORDS[o["outcome"], o["severity"]]
        seen = o["observed"] if o["unexpected"] is None else f"{o['unexpected']} unexpected"
        names = o["instance_uids"] or o["where"]
        named = "<br>".join(f"<code>{escape(name)}</code>" for name in names[:20])
        more = len(names) - 20
        cells = (
            f"<span class={style}>{word}</span>",
            escape(o["why"]),
            escape(o["column"] or "table"),
            "" if o["outcome"] == NOTHING else escape(str(seen)),
            named + (f"<br>and {more} more in {VALIDATION}" if more > 0 else ""),
            f"<small>{escape(o['rule'])}, {o['severity']}<br>{escape(o['expectation'])}: "
            f"{escape(arguments(o))}</small>",
        )
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    heads = ("", "what is asked", "column", "observed", "where", "rule, severity, expectation")
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title>{STYLE}"
        f"<h1>{title}</h1><p>{images} images, {len(outcomes)} expectations, {stopping} faults that "
        f"stop, {unasked} with nothing to check. "
        f"<a href={DATA_DOCS}/index.html>Great Expectations' own pages</a></p>"
        + ("<ul>" + "".join(f"<li>{escape(w)}" for w in warnings) + "</ul>" if warnings else "")
        + "".join(sections)
        + "<h2>Expectations</h2><table><tr>"
        + "".join(f"<th>{head}</th>" for head in heads)
        + f"</tr>{''.join(rows)}</table></html>\n"
    )
