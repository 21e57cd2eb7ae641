"""What is demanded of a snapshot before anything is learned from it: a Great Expectations suite."""

import re
import shutil
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imaging.config import Range, ValidationConfig
from imaging.manifest import STATISTICS
from lineage import telemetry
from lineage.files import write_json

if TYPE_CHECKING:
    import pandas as pd

ACCEPTED = "accepted.parquet"
VALIDATION = "validation.json"
PAGE = "validation.html"
DATA_DOCS = "data_docs"

# A UID as DICOM PS3.5 §9.1 writes them, or the content digest that names a PNG or JPEG.
UID = r"^(?=.{1,64}$)(?:[0-2](?:\.(?:0|[1-9][0-9]*))+|[0-9a-f]{32,64})$"
UNIT_STATISTICS = tuple(s for s in STATISTICS if s.startswith(("intensity_", "border_")))

Outcome = dict[str, Any]


def check(
    manifest: "pd.DataFrame",
    counts: Mapping[str, int],
    config: ValidationConfig,
    data_docs: Path,
) -> list[Outcome]:
    """Hold a snapshot against every expectation.

    Args:
        manifest: See imaging/manifest.py.
        counts: `found`, `read` and `set_aside`, as ingestion counted them.
        config: The ranges and shares demanded.
        data_docs: Where Great Expectations' own pages go. They load nothing from elsewhere, and
            the same input gives the same bytes.

    Returns:
        One per expectation: `expectation`, `column`, `arguments`, `why`, `passed`, `unexpected`
        (how many rows; None if it speaks of the table), `observed` (for those) and
        `instance_uids` of every unexpected row, also of tolerated ones.
    """
    import pandas as pd

    found = max(counts["found"], 1)
    accounts = pd.DataFrame(
        {
            "found": [counts["found"]],
            "read_or_set_aside": [counts["read"] + counts["set_aside"]],
            "read": [counts["read"]],
            "in_manifest": [len(manifest)],
            "set_aside_share": [counts["set_aside"] / found],
        }
    )
    context = _context(data_docs)
    of_rows = _run(context, "manifest", manifest, _row_rules(config), index="instance_uid")
    of_files = _run(context, "files", accounts, _account_rules(config), index=None)
    _make_offline(data_docs)
    return of_files + of_rows


def failures(outcomes: Sequence[Outcome]) -> list[str]:
    """One sentence per failed expectation: which, on what, how often, and where to look first."""
    sentences = []
    for o in outcomes:
        if o["passed"]:
            continue
        what = f"{o['expectation']} on {o['column'] or 'the table'} ({o['why']})"
        if o["unexpected"] is None:
            sentences.append(f"{what}: observed {o['observed']}, {_arguments(o)}")
        else:
            first = ", ".join(o["instance_uids"][:3])
            some = f", first {first}" if first else ""
            sentences.append(f"{what}: {o['unexpected']} unexpected, {_arguments(o)}{some}")
    return sentences


def flawless(manifest: "pd.DataFrame", outcomes: Sequence[Outcome]) -> "pd.DataFrame":
    """Column `instance_uid` of the rows that broke no rule; tolerated breaches are left out."""
    broken = {uid for o in outcomes for uid in o["instance_uids"]}
    return manifest.loc[~manifest["instance_uid"].isin(broken), ["instance_uid"]]


def write_report(outcomes: Sequence[Outcome], images: int, report: Path) -> None:
    """Write `validation.json`, and the same as one page that needs no network."""
    passed = all(o["passed"] for o in outcomes)
    facts = {"passed": passed, "images": images, "expectations": outcomes}
    write_json(report / VALIDATION, facts)
    (report / PAGE).write_text(_page(outcomes, images))


def _row_rules(config: ValidationConfig) -> list[Any]:
    import great_expectations.expectations as gxe

    mostly = 1 - config.tolerated_share

    def within(column: str, allowed: Range, why: str) -> Any:
        return gxe.ExpectColumnValuesToBeBetween(
            column=column, min_value=allowed.low, max_value=allowed.high, mostly=mostly, notes=why
        )

    def filled(column: str, why: str) -> Any:
        return gxe.ExpectColumnValuesToNotBeNull(column=column, notes=why)

    unit = Range(low=0, high=1)
    rules = [
        gxe.ExpectTableRowCountToBeBetween(
            min_value=config.minimum_images, notes="enough images to learn from"
        ),
        gxe.ExpectColumnMeanToBeBetween(
            column="label",
            min_value=config.minimum_class_share,
            max_value=1 - config.minimum_class_share,
            notes="the share of positives: both classes must be there",
        ),
        gxe.ExpectColumnValuesToBeUnique(column="instance_uid", notes="one row per image"),
        gxe.ExpectColumnValuesToMatchRegex(
            column="instance_uid", regex=UID, notes="a UID or a content digest"
        ),
        filled("patient_id", "images of one patient must be kept together"),
        gxe.ExpectColumnValueLengthsToBeBetween(
            column="patient_id", min_value=1, notes="images of one patient must be kept together"
        ),
        gxe.ExpectColumnValuesToBeInSet(column="label", value_set=[0, 1], notes="two classes"),
        gxe.ExpectColumnValuesToBeInSet(
            column="sex", value_set=list(config.sexes), mostly=mostly, notes="DICOM (0010,0040)"
        ),
        within("age_years", config.age_years, "a plausible age"),
        within("rows", config.rows, "a plausible height in pixels"),
        within("columns", config.columns, "a plausible width in pixels"),
        within("bits_stored", config.bits_stored, "a depth that can be read"),
        within("pixel_spacing_mm", config.pixel_spacing_mm, "a plausible pixel size in mm"),
        # NaN is a number to Parquet but missing here, and a missing value is in every range.
        *(filled(name, "a statistic that could not be computed") for name in STATISTICS),
        *(within(name, unit, "statistics are scaled to 0..1") for name in UNIT_STATISTICS),
        gxe.ExpectColumnValuesToBeBetween(
            column="intensity_std",
            min_value=config.minimum_intensity_std,
            strict_min=True,
            mostly=mostly,
            notes="a blank image has no spread",
        ),
        *(
            gxe.ExpectColumnPairValuesAToBeGreaterThanB(
                column_A=high, column_B=low, or_equal=True, notes="percentiles rise"
            )
            for low, high in (
                ("intensity_p01", "intensity_p50"),
                ("intensity_p50", "intensity_p99"),
            )
        ),
    ]
    if config.modalities:
        rules.append(
            gxe.ExpectColumnValuesToBeInSet(
                column="modality",
                value_set=list(config.modalities),
                mostly=mostly,
                notes="what the model is meant for; images without a header have none",
            )
        )
    return rules


def _account_rules(config: ValidationConfig) -> list[Any]:
    import great_expectations.expectations as gxe

    return [
        gxe.ExpectColumnPairValuesToBeEqual(
            column_A="read_or_set_aside", column_B="found", notes="every file is accounted for"
        ),
        gxe.ExpectColumnPairValuesToBeEqual(
            column_A="in_manifest", column_B="read", notes="every file read has its row"
        ),
        gxe.ExpectColumnMeanToBeBetween(
            column="set_aside_share",
            max_value=config.maximum_set_aside_share,
            notes="files set aside are few; set_aside.parquet says why each was",
        ),
    ]


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


def _run(
    context: Any, name: str, frame: "pd.DataFrame", rules: list[Any], index: str | None
) -> list[Outcome]:
    import great_expectations as gx
    from great_expectations.checkpoint import UpdateDataDocsAction

    source = context.data_sources.add_pandas(name)
    batch = source.add_dataframe_asset(name).add_batch_definition_whole_dataframe("all")
    suite = context.suites.add(gx.ExpectationSuite(name=name, expectations=rules))
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
        batch_parameters={"dataframe": frame}, run_id=run_id
    )
    (validation,) = result.run_results.values()
    return [_outcome(r, index) for r in validation.to_json_dict()["results"]]


def _outcome(result: Mapping[str, Any], index: str | None) -> Outcome:
    kind, kwargs = result["expectation_config"]["type"], result["expectation_config"]["kwargs"]
    found = result["result"]
    columns = [kwargs[k] for k in ("column", "column_A", "column_B") if k in kwargs]
    arguments = {k: v for k, v in kwargs.items() if k not in ("batch_id", *COLUMN_ARGUMENTS)}
    rows = found.get("unexpected_index_list") or []
    return {
        "expectation": kind,
        "column": ", ".join(columns) or None,
        "arguments": arguments,
        "why": result["expectation_config"].get("notes", ""),
        "passed": bool(result["success"]),
        "unexpected": found.get("unexpected_count"),
        "observed": found.get("observed_value"),
        "instance_uids": sorted({row[index] for row in rows}) if index else [],
    }


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
code{font-size:13px;word-break:break-all}svg,.modal{display:none}
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


def _page(outcomes: Sequence[Outcome], images: int) -> str:
    failed = sum(not o["passed"] for o in outcomes)
    title = f"Validation {'failed' if failed else 'passed'}"
    rows = []
    for o in sorted(outcomes, key=lambda o: o["passed"]):  # failures first
        word = "passed" if o["passed"] else "failed"
        seen = o["observed"] if o["unexpected"] is None else f"{o['unexpected']} unexpected"
        named = "<br>".join(f"<code>{escape(uid)}</code>" for uid in o["instance_uids"][:20])
        more = len(o["instance_uids"]) - 20
        cells = (
            f"<span class={word}>{word}</span>",
            escape(o["why"]),
            escape(o["column"] or "table"),
            escape(str(seen)),
            named + (f"<br>and {more} more in {VALIDATION}" if more > 0 else ""),
            f"<small>{escape(o['expectation'])}: {escape(_arguments(o))}</small>",
        )
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    heads = ("", "what is asked", "column", "observed", "images", "expectation")
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title>{STYLE}"
        f"<h1>{title}</h1><p>{images} images, {len(outcomes)} expectations, {failed} failed. "
        f"<a href={DATA_DOCS}/index.html>Great Expectations' own pages</a></p><table><tr>"
        + "".join(f"<th>{head}</th>" for head in heads)
        + f"</tr>{''.join(rows)}</table></html>\n"
    )
