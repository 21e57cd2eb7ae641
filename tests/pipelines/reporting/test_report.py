import json
import re
import shutil
import subprocess
import sys
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from toys import Settings, announce, breaks, judge, read
from whole_life import FILES, put, whole_life

from lineage.errors import BadInput
from lineage.workspace import Workspace
from pipelines.backends import local
from pipelines.commands.report import report
from pipelines.graph import Fail, Pipeline, Source, Step, When
from pipelines.reporting.report import page, write_report
from pipelines.runs import Run

WORDS = "<script>alert('Ω')</script>"


@pytest.fixture
def life(home: Workspace, tmp_path: Path) -> Run:
    return whole_life(home, tmp_path / "parts")


class Page(HTMLParser):
    """The tags of a page, its visible words, and whether every tag that opens closes again."""

    VOID = ("meta", "line", "rect", "circle", "polyline")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def toy(tmp_path: Path, level: float = 0.5) -> Pipeline:
    source = tmp_path / "Mueller^Hans"
    put(source / "in.txt", "x" * 60)
    plain = Settings(journal=str(tmp_path / "journal.txt"))
    first = Step(read, plain, source=Source("source", str(source)))
    second = Step(judge, plain.model_copy(update={"level": level}), words=first["words"])
    third = Step(announce, plain, verdict=second["verdict"])
    refused = Fail("refused", second["reason"], 3)
    return Pipeline("toy", [first, second, When(second["passed"], [third], [refused])])


def walk(pipeline: Pipeline, home: Workspace) -> Run:
    return local.run(pipeline, home, lambda source: Path(source.uri))


def test_a_real_run_shows_what_ran_what_was_reused_and_why(home, tmp_path) -> None:
    text = Page(page(walk(toy(tmp_path), home), home)).text
    assert "3 ran" in text
    assert "Why: first time" in text
    text = Page(page(walk(toy(tmp_path, level=0.1), home), home)).text
    assert "1 ran, 2 reused" in text
    assert "Why: level 0.5 → 0.1" in text
    assert "setting level 0.5 0.1 judge" in text
    again = toy(tmp_path, level=0.1)
    put(tmp_path / "Mueller^Hans" / "in.txt", "y" * 60)
    text = Page(page(walk(again, home), home)).text
    assert "Why: source changed" in text
    assert "What changed" not in text  # a changed input stands with its step, and only there


def test_a_refusal_is_told_first_and_the_branch_that_it_took(home, tmp_path) -> None:
    run = walk(toy(tmp_path, level=0.9), home)
    text = Page(page(run, home)).text
    assert "The gate refused the model share 0.65 against 0.9 Outcome: refused, exit code 3" in text
    assert "If judge.passed : not taken" in text
    assert "If not judge.passed : taken ■ ends as “refused”, exit code 3: so it ended" in text
    assert "Not reached: judge.passed was false" in text


def test_a_failed_run_shows_where_the_sentence_and_its_log(home, tmp_path) -> None:
    config = Settings(journal=str(tmp_path / "journal.txt"))
    put(tmp_path / "in.txt", "x")
    first = Step(read, config, source=Source("source", str(tmp_path)))
    run = walk(Pipeline("toy", [first, Step(breaks, config, words=first["words"])]), home)
    put(home.runs / run.id / "logs/breaks.log", "because")
    html = page(run, home)
    assert "✗ Failed at breaks 3 rows fail" in Page(html).text
    assert Page(html).text.count("3 rows fail") == 1
    assert "Next: the same command again – goes on from" in Page(html).text
    assert 'href="logs/breaks.log"' in html


def test_what_a_failed_step_wrote_is_shown(home, life) -> None:
    folder = home.runs / life.id
    (folder / "failed/validate").mkdir(parents=True)
    (folder / "validate.report").rename(folder / "failed/validate/report")
    html = page(life, home)
    assert "2 of 5 expectations are met by 60 images" in Page(html).text
    assert 'href="failed/validate/report/validation.html"' in html


@pytest.mark.parametrize(
    "told",
    [
        "✓ chest:2 passed the gate and is in service released: all 2 checks passed",
        "1 min 16 s",
        "61 files found = 60 read + 1 set aside. They show 40 patients.",
        "train 20 30 11 19",
        "2 of 5 expectations are met by 60 images, 1 have nothing to check.",
        "a plausible age ? warned age_years 2 unexpected",
        "scanner ? strong 0.800 (0.750 to 0.850), n 60",
        "a plausible age ✗ failed age_years 5 unexpected",
        "a plausible age ? tolerated age_years 3 unexpected",
        "The operating threshold is 0.42, set on validation images for a specificity of 0.9.",
        "AUROC 0.910 (0.850 to 0.950), n 150 patient bootstrap",
        "ROC curve",
        "operating point",
        "Calibration",
        "sex: F 0.930 (0.860 to 0.970), n 80",
        "no number: 2 patients, 10 are needed, n 2",
        "AUROC difference 0.020 (-0.010 to 0.050), n 150",
        "AUROC is 0.910 (0.850–0.950), at least 0.800 was asked: pass",
        "chest:2 was approved by person:Ada: figures reviewed.",
        "10% ✓ pass 70 7",
        "errors ✓ pass 0 of 7 failed",
        "Drift: 1 of 2 columns drifted over 60 requests.",
        "sharpness ✗ drifted 2.50 p < 0.001 30 / 60",
        "Requested. Drift, and 12 newly labelled patients. Newly labelled: 12 patients.",
        "lightbox lineage chest:2",
        "ingest.snapshot cccccccccccc",
    ],
)
def test_a_whole_life_is_told(home, life, told) -> None:
    assert told in Page(page(life, home)).text


def test_losses_are_drawn_by_epoch_and_the_kept_one_is_marked(home, life) -> None:
    card = home.runs / life.id / "train.model/model.json"
    card.write_text(json.dumps(json.loads(card.read_text()) | {"best_epoch": 2}))
    html = page(life, home)
    assert "kept: epoch 2" in html
    assert html.count('<svg class="chart"') == 4  # loss, ROC, calibration, canary; no AUROC here


def test_traffic_is_drawn_as_the_steps_in_which_it_moved(home, life) -> None:
    svg = page(life, home).partition("<title>Share of requests")[2].partition("</svg>")[0]
    (line,) = re.findall(r'<polyline class="s0" points="([^"]+)"', svg)
    (x0, y0), (x1, y1), (x2, y2), (x3, y3) = (place.split(",") for place in line.split())
    assert (y0, x1, y2) == (y1, x2, y3)
    assert float(x0) < float(x1) < float(x3)
    assert float(y0) > float(y3)


def test_what_is_met_is_not_called_tolerated(home, life) -> None:
    text = Page(page(life, home)).text
    assert text.count("? tolerated") == 1
    assert text.count("✓ met") == 1


@pytest.mark.parametrize("name", [*FILES, "ingest.snapshot/counts.json", "train.model/model.json"])
@pytest.mark.parametrize("value", [None, "{", "[]", "{}", '"x"', '[{"epoch": "x"}]', "3"])
def test_a_file_that_is_missing_or_of_another_version_costs_its_section_only(
    home, life, name, value
) -> None:
    path = home.runs / life.id / name
    path.unlink()
    if value is not None:
        path.write_text(value)
    text = Page(page(life, home)).text
    assert "passed the gate and is in service" in text
    assert "Versions and digests" in text


def test_a_section_that_cannot_be_read_is_named(home, life) -> None:
    put(home.runs / life.id / "gate.verdict/verdict.json", {"outcome": "pass"})
    text = Page(page(life, home)).text
    assert "Left out, for their files were written by another version: gate." in text


def test_a_run_that_an_earlier_version_recorded_has_a_page(home, life) -> None:
    life.graph = {}
    assert "11 ran" in Page(page(life, home)).text


@pytest.mark.parametrize(
    ("outcome", "code", "headline"),
    [
        ("waiting for approval", 4, "? chest:2 waits for approval"),
        ("rolled back", 5, "✗ chest:2 was not released: the canary was withdrawn"),
        ("interrupted", 130, "? Interrupted"),
        ("running", None, "? Still running"),
        ("bad input", 2, "✗ Bad input"),
    ],
)
def test_each_ending_has_its_headline(home, life, outcome, code, headline) -> None:
    life.outcome, life.exit_code = outcome, code
    text = Page(page(life, home)).text
    assert headline in text
    assert ("lightbox approve chest:2" in text) == (code == 4)


def test_a_watch_says_whether_there_is_drift_and_what_follows(home, life) -> None:
    life.steps = life.steps[-2:]
    life.steps[0].values = {"drifted": True, "verdict": "drift"}
    life.steps[1].values = {"requested": True, "reason": "drift, and 12 newly labelled patients"}
    life.graph = {}
    assert "? Drift; a retraining was asked for" in Page(page(life, home)).text


def test_the_figure_and_the_verdict_stand_in_the_head(home, life) -> None:
    life.step("evaluate").values = {
        "auroc": "0.910 (0.850 to 0.950)",
        "images": 150,
        "patients": 40,
    }
    life.step("gate").values = {"passed": True, "reason": "pass: 40 patients (needed 30)"}
    head = Page(page(life, home)).text.partition("What ran")[0]
    assert "AUROC 0.910 (0.850 to 0.950) on 150 test images of 40 patients; gate: pass" in head


def test_the_head_says_what_was_set_but_not_where_data_lies(home, life) -> None:
    life.overrides = ["training.seed=3", "sources.scans=Mueller", "a.b=/clinic/Mueller"]
    html = page(life, home)
    assert "with chest.yaml, training.seed=3, sources.scans=…, a.b=…" in Page(html).text
    assert "Mueller" not in html


def test_a_command_stands_in_a_page_once(home, life) -> None:
    life.outcome, life.exit_code = "waiting for approval", 4
    life.reason = "no person has decided yet: lightbox approve chest:2 --reason …"
    life.step("promote").values = {"approved": False, "reason": life.reason}
    waits = {
        "approved": False,
        "actor": None,
        "reason": life.reason,
        "name": "chest",
        "version": "2",
    }
    put(home.runs / life.id / "promote.approval/approval.json", waits)
    text = Page(page(life, home)).text
    assert text.count("lightbox approve") == 1
    assert "chest:2 is not approved yet: no person has decided yet." in text


def test_a_reused_step_shows_what_it_once_took(home, life) -> None:
    step = life.step("train")
    step.state, step.seconds, step.made_seconds = "reused", 0.004, 75.0
    text = Page(page(life, home)).text
    assert "train ↺ reused was 1 min 15 s" in text
    assert "in 1 min 15 s" in text


def test_a_step_that_was_stopped_has_not_failed(home, life) -> None:
    life.outcome, life.exit_code, life.step("train").state = "interrupted", 130, "failed"
    text = Page(page(life, home)).text
    assert "1 stopped" in text
    assert "train ■ stopped" in text


def test_where_nothing_ran_no_step_repeats_it(home, life) -> None:
    life.outcome, life.exit_code, life.reason = "bad input", 2, "sources.scans: it is empty"
    for step in life.steps:
        step.state, step.values = "skipped", {}
    text = Page(page(life, home)).text
    assert text.count("sources.scans: it is empty") == 1
    assert "Not reached" not in text


def hostile(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: hostile(item) for key, item in value.items()} | {f'{WORDS}" onload="x': 1}
    if isinstance(value, list):
        return [hostile(item) for item in value]
    return f'{value}{WORDS}" onclick="alert(1)' if isinstance(value, str) else value


def test_text_from_the_store_is_never_markup(home, life) -> None:
    folder = home.runs / life.id
    for name in (*FILES, "train.model/model.json", "evaluate.metrics/metrics.json"):
        if name.endswith(".json"):
            put(folder / name, hostile(json.loads((folder / name).read_text())))
    life.reason = life.config = life.pipeline = WORDS
    life.steps[0].why = WORDS
    life.steps[0].changed = [{"part": "config", "name": WORDS, "before": WORDS, "after": WORDS}]
    life.steps[6].values = {"model_version": WORDS}
    parsed = Page(page(life, home))
    assert WORDS in parsed.text
    assert parsed.text.count("<script>") > 20
    assert "script" not in {tag for tag, _ in parsed.tags}
    assert not [key for _, attributes in parsed.tags for key in attributes if key.startswith("on")]


def test_no_path_and_no_identifier_is_shown(home, life, tmp_path) -> None:
    life.reason = f"sources.scans: /clinic/Mueller^Hans/scans does not exist; see {home.home}/x"
    html = page(life, home) + page(walk(toy(tmp_path), home), home)
    assert "sources.scans: (scans) does not exist; see (workspace)/x" in Page(html).text
    for secret in ("Mueller", str(tmp_path), "2.25.77"):
        assert secret not in html


def test_a_page_loads_nothing_and_links_only_to_what_is_there(home, life) -> None:
    html = write_report(life, home).read_text()
    assert "http:" not in html
    assert "https:" not in html
    assert "default-src 'none'" in html
    parsed = Page(html)
    assert not {"script", "link", "img", "iframe"} & {tag for tag, _ in parsed.tags}
    links = [attributes["href"] for tag, attributes in parsed.tags if tag == "a"]
    assert "validate.report/validation.html" in links
    assert all((home.runs / life.id / str(link)).is_file() for link in links)
    assert "href" not in page(life, home, links=False)


def test_drawings_have_names_and_signs_stand_beside_colours(home, life) -> None:
    parsed = Page(page(life, home))
    drawings = [attributes for tag, attributes in parsed.tags if tag == "svg"]
    assert all(a.get("role") == "img" or a.get("aria-hidden") == "true" for a in drawings)
    for state in ("✓ ran", "✗ failed", "? tolerated"):
        assert state in parsed.text


def test_a_page_that_cannot_be_replaced_leaves_no_draft(home, life) -> None:
    folder = home.runs / life.id
    (folder / "report.html").mkdir()
    with pytest.raises(OSError, match=r"report\.html"):
        write_report(life, home)
    assert not list(folder.glob(".report*"))


def test_half_a_character_does_not_stop_the_page(home, life) -> None:
    life.config = "scans-\udce4.yaml"
    assert "scans-?.yaml" in write_report(life, home).read_text()


def test_nothing_heavy_is_imported_to_write_it(home, life) -> None:
    put(home.runs / life.id / "run.json", asdict(life))
    script = """
import sys
from lineage.workspace import workspace
from pipelines.reporting.report import write_report
from pipelines.runs import find_run
text = write_report(find_run(workspace(), None), workspace()).read_text()
assert "AUROC difference" in text and "sharpness" in text
print(sorted({"numpy", "pandas", "scipy", "mlflow", "torch", "matplotlib"} & set(sys.modules)))
"""
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (told.stdout, told.stderr) == ("[]\n", "")


def test_the_command_writes_the_page_and_says_where(home, tmp_path) -> None:
    run = walk(toy(tmp_path), home)
    told = CliRunner().invoke(report, [run.id[:15]])
    assert told.output.strip() == str(home.runs / run.id / "report.html")
    assert Path(told.output.strip()).is_file()
    copy = tmp_path / "copy.html"
    CliRunner().invoke(report, ["-o", str(copy)])
    assert "3 ran" in Page(copy.read_text()).text
    nowhere = CliRunner().invoke(report, ["-o", str(tmp_path / "nowhere/copy.html")])
    assert isinstance(nowhere.exception, BadInput)


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not at hand")
@pytest.mark.parametrize("width", [360, 1280])
def test_no_window_is_too_narrow_for_the_page(home, life, tmp_path, width) -> None:
    life.reason = "a" * 300
    life.steps[1].why = "learning_rate" * 30
    address = write_report(life, home).as_uri()
    # A window of chromium is never narrower than 500 pixels; a frame is as narrow as it is told.
    wrapper = tmp_path / "wrapper.html"
    wrapper.write_text(
        f'<iframe src="{address}" style="width:{width}px;height:900px;border:0"></iframe><script>'
        "onload = () => { const root = frames[0].document.scrollingElement;"
        "document.title = `${root.scrollWidth} of ${root.clientWidth}`; }</script>"
    )
    flags = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --hide-scrollbars "
        "--disable-background-networking --disable-component-update --disable-sync "
        f"--allow-file-access-from-files --user-data-dir={tmp_path / 'profile'} --dump-dom"
    )
    told = subprocess.run(
        ["chromium", *flags.split(), wrapper.as_uri()], capture_output=True, text=True, timeout=60
    )
    assert f"<title>{width} of {width}</title>" in told.stdout
