"""What the steps of a run found, as sections of its report: read from their small JSON files.

Each section is a function of the outputs; it answers None where its step did not run. Nothing
here needs pandas: a run in which all was reused writes its report too, and shall stay quick.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from imaging.reasons import REASONS
from pipelines.reporting.charts import Line, Point, bar, chart, interval
from pipelines.reporting.sections import Cell, Outputs, Section, Table, words

METRICS = ("auroc", "sensitivity", "specificity")
SIDES = ("train", "validation", "test")


def data(outputs: Outputs) -> Section | None:
    """How many files came in, why some were set aside, and who is in which split."""
    counts = outputs.json("ingest", "snapshot", "counts.json")
    if counts is None:
        return None
    lead = [
        f"{counts['found']} files found = {counts['read']} read + {counts['set_aside']} set aside. "
        f"They show {counts['patients']} patients."
    ]
    if (alone := counts.get("labels_without_image")) and alone > 0:
        lead.append(f"{alone} rows of the labels table have no image.")
    tables = []
    if reasons := counts["reasons"]:
        rows = [
            (
                Cell(words(r)),
                Cell(str(n), drawing=bar([n], counts["found"])),
                Cell(REASONS.get(r, "")),
            )
            for r, n in sorted(reasons.items(), key=lambda item: -item[1])
        ]
        tables.append(Table("Files set aside", ("Reason", "Files", "What it means"), rows))
    if splits := outputs.json("split", "splits", "splits.json"):
        tables.append(_splits(splits["sides"], _classes(outputs)))
    return Section("Data", lead, tables=tables)


def _classes(outputs: Outputs) -> tuple[str, str]:
    labels = _config(outputs, "ingest", "snapshot").get("labels", {})
    negative, positive = labels.get("classes", ("negative", "positive"))
    return str(negative), str(positive)


def _splits(sides: Mapping[str, Any], classes: tuple[str, str]) -> Table:
    negative, positive = classes
    most = max(side["images"] for side in sides.values())
    rows = []
    for name in (n for n in SIDES if n in sides):
        side = sides[name]
        images, with_finding = side["images"], side["positive_images"]
        rows.append(
            (
                Cell(name),
                Cell(str(side["patients"])),
                Cell(str(images), drawing=bar([with_finding, images - with_finding], most)),
                Cell(str(with_finding)),
                Cell(str(images - with_finding)),
            )
        )
    heads = ("Split", "Patients", "Images", f"Images: {positive}", f"Images: {negative}")
    return Table(f"Splits, by patient; bars: {positive}, then {negative}", heads, rows)


def validation(outputs: Outputs) -> Section | None:
    """Which expectations the snapshot met; all that failed, and which rows were left out."""
    found = outputs.json("validate", "report", "validation.json")
    if found is None:
        return None
    expectations = found["expectations"]
    failed = [e for e in expectations if e["passed"] is False]
    unasked = [e for e in expectations if e["passed"] is None]
    tolerated = [e for e in expectations if e["passed"] and e["unexpected"]]
    lead = [
        f"{len(expectations) - len(failed) - len(unasked)} of {len(expectations)} expectations are "
        f"met by {found['images']} images, {len(unasked)} have nothing to check."
    ]
    # Until there were severities, all stopped.
    stops = [e for e in failed if e.get("severity", "stop") == "stop"]
    warns = [e for e in failed if e not in stops]
    told = [(e, "failed", "fail") for e in stops] + [(e, "warned", "inconclusive") for e in warns]
    told += [(e, "tolerated", "inconclusive") for e in tolerated]
    rows = [
        (
            Cell(e["why"]),
            Cell(word, mark=mark),
            Cell(e["column"] or "the table"),
            Cell(_seen(e)),
        )
        for e, word, mark in told
    ]
    heads = ("What is asked", "Outcome", "Column", "Seen")
    tables = [Table("Expectations that some images do not meet", heads, rows)] if rows else []
    met = [
        (Cell(e["why"]), Cell("met", mark="pass"), Cell(e["column"] or "the table"), Cell(_seen(e)))
        for e in expectations
        if e["passed"] and not e["unexpected"]
    ]
    tables.append(Table("Expectations that are met", heads, met, folded=True))
    tables += _shortcuts(found.get("shortcuts", []))
    links = outputs.links(("Every expectation", "validate", "report", "validation.html"))
    return Section("Validation", lead, tables=tables, links=links)


def _shortcuts(found: Sequence[Mapping[str, Any]]) -> list[Table]:
    """The fields that tell the classes apart, and should not, the strongest first."""
    rows = [
        (
            Cell(s["field"]),
            Cell("strong", mark="inconclusive") if s["strong"] else Cell("weak", mark="pass"),
            _estimate(s["auroc"], (0.4, 1.0), (0.5,)),
        )
        for s in found
        if not s["exempt"]
    ]
    heads = ("Field alone", "Outcome", "AUROC, patients not seen before; thin line: chance")
    return [Table("Can the label be told without the image?", heads, rows)] if rows else []


def _seen(expectation: Mapping[str, Any]) -> str:
    unexpected, observed = expectation["unexpected"], expectation["observed"]
    if unexpected is not None:
        return f"{unexpected} unexpected" if unexpected else "nothing unexpected"
    return f"{observed:.4g}" if isinstance(observed, float) else str(observed)


def training(outputs: Outputs) -> Section | None:
    """Loss and AUROC by epoch, and the epoch whose weights were kept."""
    history = outputs.json("train", "model", "history.json")
    if not history:
        return None
    card = outputs.json("train", "model", "model.json") or {}
    lead = []
    if card:
        shown = card["trained_on"]
        lead = [
            f"{card['network']['name']}, trained on {shown['images']} images of "
            f"{shown['patients']} patients, seed {card['seed']}. "
            f"The operating threshold is {card['threshold']:.4g}, set on validation images for a "
            f"specificity of {card['target_specificity']:g}."
        ]
    best = card.get("best_epoch")
    mark = (float(best), f"kept: epoch {best}") if best else None

    def curve(name: str, key: str) -> Line:
        return Line(name, [(e["epoch"], e[key]) for e in history if key in e])

    loss = [curve("training", "train_loss"), curve("validation", "validation_loss")]
    auroc = [curve("validation", "validation_auroc")]
    figures = [
        (chart("Loss by epoch", loss, x="epoch", y="loss", mark=mark), "Loss"),
        (chart("AUROC by epoch", auroc, x="epoch", y="AUROC", mark=mark), "AUROC"),
    ]
    return Section("Training", lead, [figure for figure in figures if figure[0]])


def evaluation(outputs: Outputs) -> Section | None:
    """Metrics with intervals on the sealed test split, curves, and subgroups."""
    found = outputs.json("evaluate", "metrics", "metrics.json")
    if found is None:
        return None
    metrics = found["metrics"]
    lead = [
        f"On the sealed test split: {found['n_images']} images of {found['n_patients']} patients, "
        f"{found['n_positive']} positive. Brackets and bars are 95 % intervals."
    ]
    rows = [
        (Cell(words(name)), _estimate(value, (0.0, 1.0)), Cell(value.get("method") or ""))
        for name, value in metrics.items()
    ]
    tables = [Table("Metrics; axis from 0 to 1", ("Metric", "Estimate", "Method"), rows)]
    if groups := _subgroups(metrics, found.get("subgroups") or {}):
        tables.append(groups)
    return Section("Evaluation", lead, _curves(outputs, metrics), tables)


def _curves(outputs: Outputs, metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    curves = outputs.json("evaluate", "metrics", "curves.json")
    if curves is None:
        return []
    chance = Line("chance", [(0, 0), (1, 1)], "guide")
    roc = [Line("model", curves["roc"]), chance]
    hit, quiet = (metrics[name]["estimate"] for name in ("sensitivity", "specificity"))
    if None not in (hit, quiet):
        roc.insert(1, Line("operating point", [(1 - quiet, hit)], "dots"))
    bins = curves["calibration"]
    seen = Line(
        "model, 95 % interval",
        [(b["score"], b["frequency"]) for b in bins],
        "dots",
        [(b["score"], b["low"], b["high"]) for b in bins if b["low"] is not None],
    )
    unit = (0.0, 1.0)
    curve = chart(
        "ROC curve",
        roc,
        x="1 − specificity",
        y="sensitivity",
        x_range=unit,
        y_range=unit,
        height=340,
    )
    agreement = chart(
        "Calibration: observed frequency by mean score",
        [seen, Line("perfect", [(0, 0), (1, 1)], "guide")],
        x="mean score",
        y="observed frequency",
        x_range=unit,
        y_range=unit,
        height=340,
    )
    return [(curve, "ROC curve"), (agreement, "Calibration, in bins of equal size")]


def _subgroups(metrics: Mapping[str, Any], subgroups: Mapping[str, Any]) -> Table | None:
    shown = [m for m in METRICS if m in metrics]
    groups = [("all", metrics)]
    groups += [(f"{words(by)}: {g}", f) for by, of in subgroups.items() for g, f in of.items()]
    if len(groups) == 1:
        return None
    lows = [f[m]["low"] for _, f in groups for m in shown if f.get(m, {}).get("low") is not None]
    span = (int(min(lows, default=0.0) * 10) / 10, 1.0)
    rows = [
        (
            Cell(name),
            *(_estimate(of.get(m, {}), span, (metrics[m]["estimate"],)) for m in shown),
        )
        for name, of in groups
    ]
    caption = f"Subgroups; axis from {span[0]:g} to 1, thin line: all patients"
    return Table(caption, ("Group", *map(words, shown)), rows)


def _estimate(
    found: Mapping[str, Any],
    span: tuple[float, float],
    compared: tuple[float | None, ...] = (),
) -> Cell:
    from registry.dossier import interval as spelled

    text = spelled(found).replace(" n ", " n\u00a0")  # not to part them at a line's end
    return Cell(text, drawing=interval(found, span, compared))


def champion(outputs: Outputs) -> Section | None:
    """How the model compares with the one in service, on the same patients."""
    found = outputs.json("evaluate", "metrics", "metrics.json")
    if found is None:
        return None
    if not found["champion"]:
        return Section("Compared with the champion", ["There was no champion to compare with."])
    digest = found["champion"]["digest"]
    rules = _config(outputs, "gate", "verdict").get("rules", ())
    margins = [-rule["margin"] for rule in rules if "margin" in rule]
    rows = []
    for name, value in (found["comparison"] or {}).items():
        reach = max((abs(value.get(end) or 0) for end in ("low", "high")), default=0)
        span = max([reach, *map(abs, margins), 0.01]) * 1.1
        cell = _estimate(value, (-span, span), (0.0, *margins))
        rows.append((Cell(words(name)), cell, Cell(value.get("method") or "")))
    margin = f", and at the margin {margins[0]:g}" if margins else ""
    caption = f"Candidate minus champion, on the same patients; thin lines: at 0{margin}"
    same = digest == found["candidate"]["digest"]
    lead = ["The champion is this very model." if same else f"The champion is model {digest[:12]}."]
    return Section(
        "Compared with the champion",
        lead,
        tables=[Table(caption, ("Difference", "Estimate", "Method"), rows)],
    )


def gate(outputs: Outputs) -> Section | None:
    """Each rule: what it asks, what it found, how it ruled."""
    verdict = outputs.json("gate", "verdict", "verdict.json")
    if verdict is None:
        return None
    rules = _config(outputs, "gate", "verdict").get("rules", ())
    asked = [_asked(rule) for rule in rules] or [words(r["rule"]) for r in verdict["rules"]]
    rows = [
        (Cell(ask), Cell(ruling["outcome"], mark=ruling["outcome"]), Cell(ruling["sentence"]))
        for ask, ruling in zip(asked, verdict["rules"], strict=True)
    ]
    heads = ("Rule", "Outcome", "What was found")
    lead = [f"The gate says: {verdict['outcome']}."]
    return Section("Gate", lead, tables=[Table("Rules", heads, rows)])


def _asked(rule: Mapping[str, Any]) -> str:
    limits = ", ".join(f"{words(k)} {words(str(v))}" for k, v in rule.items() if k != "rule")
    return f"{words(rule['rule'])}: {limits}"


def approval(outputs: Outputs) -> Section | None:
    """Who let the model pass, or that nobody did yet."""
    found = outputs.json("promote", "approval", "approval.json")
    if found is None:
        return None
    model = f"{found['name']}:{found['version']}"
    decided = "approved" if found["approved"] else "refused"
    who = f"was {decided} by {found['actor']}" if found["actor"] else "is not approved yet"
    return Section("Approval", [f"{model} {who}: {found['reason'].partition(': lightbox ')[0]}."])


def canary(outputs: Outputs) -> Section | None:
    """How traffic moved to the model, what each look found, and how it ended."""
    found = outputs.json("deploy_canary", "release", "release.json")
    if found is None:
        return None
    looks = found["looks"]
    lead = [f"{found['name']}:{found['version']}: {found['outcome']}, {found['reason']}."]
    if former := found["previous_champion"]:
        lead.append(f"In service before: version {former['version']}.")
    elif looks:
        lead.append("It is the first release, so it answered every request.")
    figure = chart(
        "Share of requests to the new model",
        [Line("share", _steps(looks))],
        x="requests so far",
        y="% to the new model",
        x_range=(0, max((look["requests"] for look in looks), default=1)),
        y_range=(0, 100),
    )
    rows = [
        (
            Cell(f"{look['share']:.0%}"),
            Cell(look["judgement"]["outcome"], mark=look["judgement"]["outcome"]),
            Cell(str(look["requests"])),
            Cell(str(look["challenger_answers"])),
        )
        for look in looks
    ]
    tables = [Table("Looks", ("Share", "Outcome", "Requests", "By the new model"), rows)]
    if looks:
        checks = [
            (Cell(c["name"]), Cell(c["outcome"], mark=c["outcome"]), Cell(c["sentence"]))
            for c in looks[-1]["judgement"]["checks"]
        ]
        heads = ("Check", "Outcome", "What was found")
        tables.append(Table("Checks at the last look", heads, checks))
    # Of a first release there is nothing to see: it has all requests from the start.
    figures = [(figure, "Share of requests")] if former and figure else []
    return Section("Canary", lead, figures, tables if looks else [])


def _steps(looks: Sequence[Mapping[str, Any]]) -> list[Point]:
    """A look comes after the requests that were sent at its share."""
    points: list[Point] = []
    before = 0
    for look in looks:
        points += [(before, 100 * look["share"]), (look["requests"], 100 * look["share"])]
        before = look["requests"]
    return points


def drift(outputs: Outputs) -> Section | None:
    """Whether what the model is sent still looks like what it was made from."""
    found = outputs.json("monitor_drift", "report", "drift.json")
    if found is None:
        return None
    columns = sorted(
        found["columns"].items(), key=lambda item: (not item[1]["drifted"], -item[1]["effect"])
    )
    rows = [
        (
            Cell(words(name)),
            Cell("drifted", mark="fail") if c["drifted"] else Cell("steady", mark="pass"),
            Cell(f"{c['effect']:.2f}"),
            Cell(_p(c["adjusted_p_value"])),
            Cell(f"{c['n_reference']} / {c['n_current']}"),
        )
        for name, c in columns
    ]
    heads = ("Column", "Outcome", "Effect", "Adjusted p", "Images before / requests now")
    tables = [Table("What requests look like, against the reference", heads, rows)] if rows else []
    links = outputs.links(("Drift report", "monitor_drift", "report", "drift.html"))
    return Section("Drift", [_sentence(found["sentence"])], tables=tables, links=links)


def _p(value: float) -> str:
    # As monitoring.alarms writes it, whose import takes longer than the whole report.
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def retraining(outputs: Outputs) -> Section | None:
    """Whether a new model was asked for."""
    found = outputs.json("retrain", "request", "request.json")
    if found is None:
        return None
    said = f"{_sentence(found['status'])} {_sentence(found['reason'])}"
    if found["newly_labelled"] is not None:
        said += f" Newly labelled: {found['newly_labelled']} {found['unit']}."
    return Section("Retraining", [said])


def _config(outputs: Outputs, step: str, output: str) -> Mapping[str, Any]:
    config: Mapping[str, Any] = outputs.record(step, output).get("config", {})
    return config


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


SECTIONS = (
    data,
    validation,
    training,
    evaluation,
    champion,
    gate,
    approval,
    canary,
    drift,
    retraining,
)
