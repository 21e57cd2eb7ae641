"""Great Expectations' own pages, made to load nothing and to be the same for the same input."""

import re
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lineage import telemetry

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
# The same data give the same pages, whenever that is; a run's report says when it was.
NEVER = datetime(2000, 1, 1, tzinfo=UTC)
NEVER_SAID = re.compile(r"(?P<trail> / )?2000-01-01T00:00:00Z")
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


def gx_context(data_docs: Path) -> Any:
    """What Great Expectations runs in, writing its pages to a folder."""
    telemetry.off()
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    made = gx.get_context(mode="ephemeral")
    made.variables.progress_bars = ProgressBarsConfig(globally=False)
    store = {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(data_docs)}
    site = {
        "class_name": "SiteBuilder",
        "show_how_to_buttons": False,
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
        "store_backend": store,
    }
    made.add_data_docs_site(site_name="report", site_config=site)
    return made


def make_offline(data_docs: Path) -> None:
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
        html = NEVER_SAID.sub(lambda said: "" if said["trail"] else "see the run's report", html)
        page.write_text(
            html.replace("<head>", f"<head>{SAFE}", 1).replace("</head>", f"{STYLE}</head>", 1)
        )
    links = ""
    for page in pages:
        path = page.relative_to(data_docs)
        links += (
            f"<li><a href={path.as_posix()}>{path.parts[0]}: {path.with_suffix('').parts[1]}</a>"
        )
    index.write_text(f"<!doctype html><meta charset=utf-8><title>Data Docs</title>{STYLE}{links}\n")
