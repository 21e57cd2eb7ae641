"""What is demanded of a snapshot before anything is learned from it: a Great Expectations suite."""

import difflib
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imaging.config import Expectation, Severity, ValidationConfig
from imaging.manifest import schema
from imaging.validation import rules, snapshot_drift
from lineage import telemetry
from lineage.errors import BadInput
from lineage.files import write_json

if TYPE_CHECKING:
    import pandas as pd

ACCEPTED = "accepted.parquet"
VALIDATION = "validation.json"
PAGE = "validation.html"
DATA_DOCS = "data_docs"

MOST_NAMED = 40  # in a sentence
PASSED, FAILED, NOTHING = "passed", "failed", "nothing to check"
Outcome = dict[str, Any]
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


def check(
    manifest: "pd.DataFrame",
    counts: Mapping[str, Any],
    config: ValidationConfig,
    data_docs: Path,
    previous: "pd.DataFrame | None" = None,
) -> list[Outcome]:
    """Hold a snapshot against every expectation.

    Args:
        manifest: See imaging/manifest.py.
        counts: `found`, `read`, `set_aside` and `reasons`, as ingestion counted them.
        config: The ranges and shares demanded, and expectations of one's own.
        data_docs: Where Great Expectations' own pages go. They load nothing from elsewhere, and
            the same input gives the same bytes.
        previous: The manifest that the champion was made from, if there is one.

    Returns:
        One per expectation: `rule` (a key of `rules.SEVERITY`, or `own`), `expectation`, `column`,
        `arguments`, `why`, `severity` (stop, warn), `outcome` (passed, failed, nothing to check:
        the column is empty, or there is none such), `passed` (true, false, null), `unexpected`
        (how many rows; None if it speaks of the table), `observed` (for those), `where` (columns
        or groups that failed) and `instance_uids` of every unexpected row, also of tolerated ones.

    Raises:
        BadInput: An expectation of one's own cannot be put to its column.
    """
    changes = snapshot_drift.changes(previous, manifest, config.drift)
    tables = (
        _Table("files", rules.files(counts, len(manifest)), rules.of_files(config), None),
        _Table("columns", rules.columns(manifest), rules.of_columns(config), "column"),
        _Table(
            "manifest",
            rules.derived(manifest, config, previous),
            rules.of_rows(config) + own(config.expectations),
            "instance_uid",
        ),
        _Table("groups", rules.groups(manifest), rules.of_groups(config), "group"),
        _Table("changes", _frame(changes), rules.of_changes(config), "column"),
    )
    context = _context(data_docs)
    outcomes = [outcome for table in tables for outcome in _run(context, table)]
    _make_offline(data_docs)
    return outcomes


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


def failures(outcomes: Sequence[Outcome], severity: Severity = "stop") -> list[str]:
    """One sentence per failed expectation: which, on what, how often, and where to look first."""
    sentences = []
    for o in outcomes:
        if o["outcome"] != FAILED or o["severity"] != severity:
            continue
        what = f"{o['expectation']} on {o['column'] or 'the table'} ({o['why']})"
        if o["unexpected"] is None:
            sentences.append(f"{what}: observed {o['observed']}, {_arguments(o)}")
        else:
            first = ", ".join((o["instance_uids"] or o["where"])[:3])
            some = f", first {first}" if first else ""
            sentences.append(f"{what}: {o['unexpected']} unexpected, {_arguments(o)}{some}")
    return sentences


def flawless(manifest: "pd.DataFrame", outcomes: Sequence[Outcome]) -> "pd.DataFrame":
    """Column `instance_uid` of the rows that broke no rule that stops; tolerated breaches are
    left out, and what is warned of stays in."""
    broken = {uid for o in outcomes if o["severity"] == "stop" for uid in o["instance_uids"]}
    return manifest.loc[~manifest["instance_uid"].isin(broken), ["instance_uid"]]


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


def _frame(changes: Sequence[snapshot_drift.Change]) -> "pd.DataFrame":
    import pandas as pd

    columns = list(snapshot_drift.Change.__dataclass_fields__)
    return pd.DataFrame(snapshot_drift.as_dicts(list(changes)), columns=columns)


@dataclass(frozen=True)
class _Table:
    """Something to hold expectations against; `index` names its rows."""

    name: str
    frame: "pd.DataFrame"
    rules: list[Any]
    index: str | None


def _context(data_docs: Path) -> Any:
    telemetry.off()
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    store = {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(data_docs)}
    site = {
        "class_name": "SiteBuilder",
        "show_how_to_buttons": False,
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
        "store_backend": store,
    }
    context.add_data_docs_site(site_name="report", site_config=site)
    return context


def _run(context: Any, table: _Table) -> list[Outcome]:
    import great_expectations as gx
    from great_expectations.checkpoint import UpdateDataDocsAction

    if table.frame.empty:  # no expectation can be asked of no rows
        return [_unasked(rule.configuration.to_json_dict()) for rule in table.rules]
    name, index = table.name, table.index
    source = context.data_sources.add_pandas(name)
    batch = source.add_dataframe_asset(name).add_batch_definition_whole_dataframe("all")
    suite = context.suites.add(gx.ExpectationSuite(name=name, expectations=table.rules))
    definition = gx.ValidationDefinition(name=name, data=batch, suite=suite)
    checkpoint = gx.Checkpoint(
        name=name,
        validation_definitions=[context.validation_definitions.add(definition)],
        result_format={
            "result_format": "COMPLETE",
            **({"unexpected_index_column_names": [index]} if index else {}),
        },
        actions=[UpdateDataDocsAction(name="docs", site_names=["report"])],
    )
    run_id = gx.RunIdentifier(run_name="validation", run_time=datetime(2000, 1, 1, tzinfo=UTC))
    result = context.checkpoints.add(checkpoint).run(
        batch_parameters={"dataframe": table.frame}, run_id=run_id
    )
    (validation,) = result.run_results.values()
    return [_outcome(r, table) for r in validation.to_json_dict()["results"]]


def _outcome(result: Mapping[str, Any], table: _Table) -> Outcome:
    outcome, found = _unasked(result["expectation_config"]), result["result"]
    kwargs = result["expectation_config"]["kwargs"]
    columns = [kwargs[k] for k in COLUMN_ARGUMENTS if k in kwargs]
    if _is_empty(outcome["expectation"], table.frame, columns):
        return outcome
    if message := _exception(result.get("exception_info") or {}):
        place = result["expectation_config"]["meta"].get("place", "validation")
        raise BadInput(f"{place}: {outcome['expectation']} cannot be put: {message}")
    rows = (found.get("unexpected_index_list") or []) if table.index else []
    named = [str(row[table.index]) for row in rows]
    of_images = table.index == "instance_uid"
    return outcome | {
        "outcome": PASSED if result["success"] else FAILED,
        "passed": bool(result["success"]),
        "unexpected": found.get("unexpected_count"),
        "observed": found.get("observed_value"),
        "instance_uids": sorted(set(named)) if of_images else [],
        "where": [] if of_images else sorted(set(named)),
    }


def _unasked(config: Mapping[str, Any]) -> Outcome:
    """What is known of an expectation beforehand."""
    kwargs = config["kwargs"]
    columns = [kwargs[k] for k in COLUMN_ARGUMENTS if k in kwargs]
    return {
        "rule": config["meta"]["rule"],
        "expectation": config["type"],
        "column": ", ".join(columns) or None,
        "arguments": {k: v for k, v in kwargs.items() if k not in ("batch_id", *COLUMN_ARGUMENTS)},
        "why": config.get("notes", ""),
        "severity": "warn" if config.get("severity") == "warning" else "stop",
        "outcome": NOTHING,
        "passed": None,
        "unexpected": None,
        "observed": None,
        "instance_uids": [],
        "where": [],
    }


def _is_empty(kind: str, frame: "pd.DataFrame", columns: Sequence[str]) -> bool:
    """Whether a column holds no value to judge; that it should, some expectations ask."""
    asks_of_gaps = any(word in kind for word in ("_null", "to_exist", "_type"))
    return not asks_of_gaps and any(bool(frame[c].isna().all()) for c in columns if c in frame)


def _exception(info: Mapping[str, Any]) -> str:
    """The first line of what an expectation raised; older and newer results nest it otherwise."""
    for found in (info, *(v for v in info.values() if isinstance(v, dict))):
        if found.get("raised_exception"):
            message = str(found.get("exception_message") or "").strip()
            return (message.splitlines() or ["no reason given"])[0][:200]
    return ""


COLUMN_ARGUMENTS = ("column", "column_A", "column_B")


def _arguments(outcome: Outcome) -> str:
    return ", ".join(f"{k}={v}" for k, v in outcome["arguments"].items()) or "no arguments"


# What a page of Data Docs would fetch from elsewhere, and scripts that need what is not fetched.
NEEDLESS = (
    r"<script\b.*?</script>",
    r"<link\b[^>]*>",
    r"<img\b[^>]*>",
    r"<footer>.*?</footer>",
)
# Data Docs show values unescaped: whatever a table holds, no browser runs or fetches it.
SAFE = (
    '<meta http-equiv="Content-Security-Policy" '
    "content=\"default-src 'none'; style-src 'unsafe-inline'\">"
)
# What differs between two runs on the same input.
UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
LOAD_TIME = re.compile(r"20[0-9]{6}T[0-9]{6}\.[0-9]{6}Z(?=</span>)")

STYLE = """<style>
body{font:15px/1.5 system-ui,sans-serif;margin:2rem;color:#1b2733;background:#fff}
table{border-collapse:collapse;margin:1rem 0}
td,th{border:1px solid #cfd8e0;padding:.35rem .6rem;text-align:left;vertical-align:top;
overflow-wrap:anywhere}small{color:#51606d}
.failed,.text-danger{color:#a3150f}.passed,.text-success{color:#1a6b34}
.warning{color:#8a5a00}.nothing{color:#51606d}
code{font-size:13px;word-break:break-all}svg:not(.drawn),.modal{display:none}
</style>"""


def _make_offline(data_docs: Path) -> None:
    """Cut what the pages would load or run, and what changes from run to run.

    Without Bootstrap nothing collapses any more: every section simply stands open.
    """
    shutil.rmtree(data_docs / "static")  # 4 MB of fonts and advice on how to edit a suite
    index = data_docs / "index.html"  # drawn by a script
    pages = sorted(page for page in data_docs.rglob("*.html") if page != index)
    for page in pages:
        html = page.read_text()
        for pattern in NEEDLESS:
            html = re.sub(pattern, "", html, flags=re.DOTALL)
        names = {uuid: f"id-{i}" for i, uuid in enumerate(dict.fromkeys(UUID.findall(html)))}
        for uuid, name in names.items():
            html = html.replace(uuid, name)
        html = LOAD_TIME.sub("", html)
        page.write_text(
            html.replace("<head>", f"<head>{SAFE}", 1).replace("</head>", f"{STYLE}</head>", 1)
        )
    paths = [page.relative_to(data_docs).as_posix() for page in pages]
    links = "".join(f"<li><a href={path}>{path.removesuffix('.html')}</a>" for path in paths)
    index.write_text(f"<!doctype html><meta charset=utf-8><title>Data Docs</title>{STYLE}{links}\n")


WORDS = {  # of an outcome and a severity: in which order, which style, what is said
    (FAILED, "stop"): (0, "failed", "failed"),
    (FAILED, "warn"): (1, "warning", "warning"),
    (PASSED, "stop"): (2, "passed", "passed"),
    (PASSED, "warn"): (2, "passed", "passed"),
    (NOTHING, "stop"): (3, "nothing", NOTHING),
    (NOTHING, "warn"): (3, "nothing", NOTHING),
}


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
            f"{escape(_arguments(o))}</small>",
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
