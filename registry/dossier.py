"""Where a version came from and who allowed it: for a program, a terminal, and a reader.

All three show one document, so that the human-readable and the machine copy agree
(21 CFR 11.10(b)). It covers data, training, evaluation, gate, approval and service; what a full
technical file asks beyond that (risk management, intended use, signatures) is not in it.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lineage.openings import openings
from registry import audit_log
from registry.mlflow_registry import (
    Version,
    address,
    agrees,
    decision_in_force,
    download,
    find_by_digest,
    get_version,
)

TEMPLATE = Path(__file__).with_name("dossier.html")
MARKS = {"pass": "✓", "fail": "✗", "inconclusive": "?"}
STEPS = ("ingest", "validate", "split", "train", "evaluate", "gate")  # as they ran


def lineage(name: str, version: str) -> dict[str, Any]:
    """Everything known of one version, as JSON values.

    Raises:
        BadInput: There is no such version, it was registered without lineage, or what is stored is
            not what was registered.
    """
    found = get_version(name, version)
    with TemporaryDirectory() as folder:
        stored = download(found, "lineage", Path(folder) / "lineage") / "lineage.json"
        document: dict[str, Any] = json.loads(stored.read_text())
    log = audit_log.entries()
    fault = audit_log.verify()
    seq, newest = audit_log.head()
    former = (document["evaluation"]["champion"] or {}).get("digest")
    rival = find_by_digest(name, former) if former else None
    verdict = found.tags.get("verdict_digest", "")
    kept = "validation_digest" in found.tags  # versions from before have none
    decided = decision_in_force(name, found.version, found.digest, verdict)
    return {
        "version": {**asdict(found), "aliases": list(found.aliases), "tags": dict(found.tags)},
        **document,
        "compared_with": f"{name}:{rival.version}" if rival else former,
        "approval": asdict(decided) if decided else None,
        "openings": openings(document["evaluation"]["test_set_digest"]),
        "validation_report": address(found, "validation", "validation.html") if kept else None,
        "service": _service(found, log),
        "audit": {
            "entries": [asdict(e) for e in log if e.subject == f"{name}:{found.version}"],
            "fault": asdict(fault) if fault else None,
            "head": {"rows": seq, "hash": newest},
            "agrees": agrees(found),
        },
    }


def as_text(document: Mapping[str, Any]) -> str:
    """The document of `lineage` as a tree for a terminal."""
    version, data, evaluation = (document[key] for key in ("version", "data", "evaluation"))
    described, audit = document["model"]["description"], document["audit"]
    counts, marks = data["counts"], data["deidentification"]
    trained = described["trained_on"]
    sections: list[tuple[str, list[str]]] = [
        (
            f"data {data['snapshot_digest'][:12]}",
            [
                f"{counts['read']} of {counts['found']} files read, "
                f"{counts['set_aside']} set aside, {counts['patients']} patients",
                *_deidentification(marks),
                *_validation(data, document["validation_report"]),
                f"splits {data['splits_digest'][:12]}, test set {data['test_set_digest'][:12]}",
            ],
        ),
        (
            f"model {version['digest'][:12]}",
            [
                f"{described['network']['name']}, classes {' / '.join(described['classes'])}, "
                f"threshold {described['threshold']:.3g}",
                f"trained on {trained['images']} images of {trained['patients']} patients, "
                f"seed {described['seed']}",
                *(
                    f"{step}: code {made['code'][:12]}, lock {made['environment']['lock'][:12]}"
                    for step, made in _ordered(document["steps"])
                ),
            ],
        ),
        (
            f"evaluation on {evaluation['n_patients']} test patients, "
            + (f"against {document['compared_with']}" if document["compared_with"] else "alone"),
            [
                f"{_words(metric):28} {interval(found)}"
                for found_in in (evaluation["metrics"], evaluation["comparison"] or {})
                for metric, found in found_in.items()
            ],
        ),
        (
            f"gate: {document['verdict']['outcome']}",
            [f"{MARKS[r['outcome']]} {r['sentence']}" for r in document["verdict"]["rules"]],
        ),
        (
            "service",
            [
                f"from {s['from'][:19]}Z until {s['until'][:19] + 'Z' if s['until'] else 'now'}"
                for s in document["service"]
            ]
            or ["never"],
        ),
        (
            f"openings of the test split: {len(document['openings'])} in this workspace",
            [_opened(opening) for opening in document["openings"]],
        ),
        (
            "who, when, why",
            [
                f"{e['at'][:19]}Z  {e['action']:10} {e['actor']}: {e['reason']}"
                for e in audit["entries"]
            ],
        ),
    ]
    lines = [f"{version['name']}:{version['version']}  {_standing(document)}"]
    for place, (title, leaves) in enumerate(sections):
        last = place == len(sections) - 1
        lines.append(f"{'└' if last else '├'}── {title}")
        for number, leaf in enumerate(leaves, 1):
            stem, tip = " " if last else "│", "└" if number == len(leaves) else "├"
            lines.append(f"{stem}   {tip}── {leaf}")
    return "\n".join([*lines, _trust(audit), ""])


def as_html(document: Mapping[str, Any]) -> str:
    """The document of `lineage` as one page that loads nothing from elsewhere."""
    from jinja2 import Environment, StrictUndefined

    engine = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    engine.filters |= {"interval": interval, "words": _words, "settings": _settings}
    return engine.from_string(TEMPLATE.read_text()).render(
        **document,
        standing=_standing(document),
        trust=_trust(document["audit"]),
        marks=MARKS,
        validation=_validation(document["data"], None),
        deidentification=_deidentification(document["data"]["deidentification"]),
        ordered_steps=list(_ordered(document["steps"])),
        forest=_forest(document["evaluation"]),
        digests=_digests(document),
    )


def interval(found: Mapping[str, Any]) -> str:
    """Spell an estimate as `0.912 (0.871 to 0.944), n 180`, or say why there is none."""
    if found.get("estimate") is None:
        return f"no number: {found.get('reason') or 'not measured'}, n {found.get('n', 0)}"
    bounds = ""
    if found.get("low") is not None:
        bounds = f" ({found['low']:.3f} to {found['high']:.3f})"
    return f"{found['estimate']:.3f}{bounds}, n {found['n']}"


def _standing(document: Mapping[str, Any]) -> str:
    """One line on what this version may do."""
    outcome, approval = document["verdict"]["outcome"], document["approval"]
    approved = approval is not None and approval["approved"]
    if document["service"] and document["service"][-1]["until"] is None:
        if outcome == "pass" and approved:
            return f"in service, approved by {approval['actor']}"
        # It came into service lawfully, and somebody or some later test changed their mind.
        said = f"refused by {approval['actor']}" if approval and not approved else "not approved"
        return f"IN SERVICE, although {said if outcome == 'pass' else 'its latest gate says no'}"
    if outcome != "pass":
        return (
            "refused by the gate" if outcome == "fail" else "not passed: the gate was inconclusive"
        )
    if approval is None:
        return "passed the gate, waits for approval"
    if not approved:
        return f"passed the gate, refused by {approval['actor']}"
    return f"approved by {approval['actor']}, not in service"


def _trust(audit: Mapping[str, Any]) -> str:
    """One line on whether the records may be believed."""
    if fault := audit["fault"]:
        return f"✗ The audit log is broken: row {fault['seq']} {fault['what']}."
    if not audit["agrees"]:
        return "✗ The registry's fields are not what the audit log saw registered."
    head = audit["head"]
    return (
        f"✓ The audit log's {head['rows']} rows form an unbroken chain; its head is {head['hash']}."
    )


def _service(found: Version, log: list[audit_log.Entry]) -> list[dict[str, Any]]:
    """When this version was champion: from, until (None: still), who and why."""
    moves = [
        entry
        for entry in log
        if entry.action == "champion" and entry.subject.rpartition(":")[0] == found.name
    ]
    ends: list[str | None] = [*(entry.at for entry in moves[1:]), None]
    return [
        {"from": move.at, "until": end, "actor": move.actor, "reason": move.reason}
        for move, end in zip(moves, ends, strict=False)  # one end too many if nobody ever was
        if move.subject == f"{found.name}:{found.version}"
    ]


def _forest(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """Subgroups against the whole, each metric on one common axis, for small plots.

    Returns:
        axis: lowest value drawn, in 0..1; rows: one per group, its cells one per metric, each with
        the interval in words and x positions in 0..100.
    """
    metrics = [m for m in ("auroc", "sensitivity", "specificity") if m in evaluation["metrics"]]
    groups = [
        (f"{_words(axis)}: {value}", found)
        for axis, values in evaluation.get("subgroups", {}).items()
        for value, found in values.items()
    ]
    lows = [
        found[metric]["low"]
        for _, found in [("all", evaluation["metrics"]), *groups]
        for metric in metrics
        if found.get(metric, {}).get("low") is not None
    ]
    axis = min(int(min(lows, default=0.5) * 10) / 10, 0.9)

    def cell(found: Mapping[str, Any], metric: str) -> dict[str, Any]:
        numbers = found.get(metric, {"n": 0})
        spelled = {"text": interval(numbers)}
        if numbers.get("low") is None:
            return spelled
        places = {key: numbers[key] for key in ("estimate", "low", "high")}
        if (whole := evaluation["metrics"][metric]["estimate"]) is not None:
            places["whole"] = whole
        return spelled | {k: round((v - axis) / (1 - axis) * 100, 1) for k, v in places.items()}

    rows = [("all", evaluation["metrics"]), *groups]
    return {
        "axis": axis,
        "metrics": metrics,
        "rows": [(title, [cell(found, metric) for metric in metrics]) for title, found in rows],
    }


def _digests(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    data, tags = document["data"], document["version"]["tags"]
    compared = (document["evaluation"]["champion"] or {}).get("digest", "no champion yet")
    return [
        ("model", document["model"]["digest"]),
        *((f"model / {name}", digest) for name, digest in document["model"]["files"].items()),
        ("snapshot", data["snapshot_digest"]),
        ("snapshot / manifest", data["manifest_digest"]),
        ("splits", data["splits_digest"]),
        ("test set", data["test_set_digest"]),
        ("compared with", compared),
        *(
            (what, tags[f"{what}_digest"])
            for what in ("metrics", "verdict", "reference", "lineage")
        ),
        *((f"code of {step}", made["code"]) for step, made in _ordered(document["steps"])),
    ]


def _ordered(steps: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    yield from ((step, steps[step]) for step in STEPS if step in steps)


def _deidentification(marks: Mapping[str, Any]) -> list[str]:
    """What was done, and what nobody did."""
    told = []
    if marks["dicom"]:
        options = "; ".join(f"{code} {meaning}" for code, meaning in marks["options"].items())
        edition = f"PS3.15 Table E.1-1, {marks['profile_edition']}"
        told.append(f"{marks['dicom']} DICOM files by {edition}: {options}")
    if marks["pictures"]:
        told.append(f"{marks['pictures']} pictures written anew without any metadata")
    if marks.get("volumes"):
        told.append(f"{marks['volumes']} NIfTI volumes written anew without text or extensions")
    checked = "every written file was checked" if marks["verified"] else "NOT checked"
    if not (policy := marks.get("policy")):  # of a version that is older than policies are
        return [*told, f"{checked}; text in the pixels was not looked for"]
    names = "drawn" if policy["pseudonyms"] == "random" else "derived under a key"
    told.append(
        f"policy {marks['policy_digest'][:12]}: pseudonyms {names}, dates {policy['dates']}"
    )
    searched = "looked for by a detector" if policy["text_in_pixels"]["ocr"] else "not looked for"
    found = sum(marks["checks"].values())
    told.append(
        f"{checked}, {found} leaks by {len(marks['checks'])} checks; text in the pixels was "
        f"{searched}, images that may show some were "
        f"{'held back' if policy['text_in_pixels']['action'] == 'hold' else 'masked or held back'}"
    )
    called = "" if policy["basis"] == "none" else f"called {policy['basis'].replace('_', ' ')}"
    told += [f"{called} {policy['basis_reference']}".strip()] if called else []
    told += [f"not Safe Harbor: {why}" for why in marks["not_safe_harbor"]]
    kept, classes = marks["risk"]["quasi_identifiers"], marks["risk"]["classes"]
    told.append(
        f"{classes['unique_patients']} of {marks['risk']['patients']} patients are alone with "
        f"what is kept of them ({', '.join(kept) or 'nothing'}); the smallest class has "
        f"{classes['k_minimum']}"
    )
    return told


def _validation(data: Mapping[str, Any], report: str | None) -> list[str]:
    """How the data stood against what was demanded of it; versions from before do not tell."""
    if "validation" not in data:
        return []
    found = data["validation"]
    told = ", ".join(f"{n} {outcome}" for outcome, n in found["expectations"].items())
    where = [f"report: {report}"] if report else []
    return [
        f"expectations: {told}; {len(found['warnings'])} warnings",
        f"strong shortcuts: {', '.join(found['shortcuts']) or 'none'}",
        *where,
    ]


def _opened(opening: Mapping[str, Any]) -> str:
    who, why = opening["actor"] or "not recorded who", opening["reason"] or "not recorded why"
    return f"{opening['at'][:19]}Z  {who}: {why}"


def _words(name: str) -> str:
    return name.replace("_", " ").replace("auroc", "AUROC")


def _settings(config: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Flatten a section of settings into rows of a table."""
    if isinstance(config, dict) and config:
        for key, value in config.items():
            yield from _settings(value, f"{prefix}.{key}" if prefix else key)
    else:
        yield prefix, config if isinstance(config, str) else json.dumps(config, ensure_ascii=False)
