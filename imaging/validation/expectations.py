"""What is demanded of a snapshot before anything is learned from it: a Great Expectations suite."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imaging.config import Severity, ValidationConfig
from imaging.validation import rules, snapshot_drift
from imaging.validation.data_docs import NEVER, gx_context, make_offline
from imaging.validation.own_expectations import own
from lineage.errors import BadInput

if TYPE_CHECKING:
    import pandas as pd

ACCEPTED = "accepted.parquet"
DATA_DOCS = "data_docs"

PASSED, FAILED, NOTHING = "passed", "failed", "nothing to check"
COLUMN_ARGUMENTS = ("column", "column_A", "column_B")
Outcome = dict[str, Any]


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
    context = gx_context(data_docs)
    outcomes = [outcome for table in tables for outcome in _run(context, table)]
    make_offline(data_docs)
    return outcomes


def failures(outcomes: Sequence[Outcome], severity: Severity = "stop") -> list[str]:
    """One sentence per failed expectation: which, on what, how often, and where to look first."""
    sentences = []
    for o in outcomes:
        if o["outcome"] != FAILED or o["severity"] != severity:
            continue
        what = f"{o['expectation']} on {o['column'] or 'the table'} ({o['why']})"
        if o["unexpected"] is None:
            sentences.append(f"{what}: observed {o['observed']}, {arguments(o)}")
        else:
            first = ", ".join((o["instance_uids"] or o["where"])[:3])
            some = f", first {first}" if first else ""
            sentences.append(f"{what}: {o['unexpected']} unexpected, {arguments(o)}{some}")
    return sentences


def arguments(outcome: Outcome) -> str:
    """What an expectation was asked with, on one line."""
    return ", ".join(f"{k}={v}" for k, v in outcome["arguments"].items()) or "no arguments"


def flawless(manifest: "pd.DataFrame", outcomes: Sequence[Outcome]) -> "pd.DataFrame":
    """Column `instance_uid` of the rows that broke no rule that stops; tolerated breaches are
    left out, and what is warned of stays in."""
    broken = {uid for o in outcomes if o["severity"] == "stop" for uid in o["instance_uids"]}
    return manifest.loc[~manifest["instance_uid"].isin(broken), ["instance_uid"]]


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
    run_id = gx.RunIdentifier(run_name="validation", run_time=NEVER)
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
