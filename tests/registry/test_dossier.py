import html
import json
import re
from collections.abc import Iterator
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from evidence import parts, prepare_registry

from imaging.deidentification.policy import DeidentificationPolicy, not_safe_harbor
from imaging.deidentification.profile import policy_digest
from imaging.deidentification.risk import risk_summary
from lineage.errors import BadInput
from lineage.openings import record_opening
from lineage.workspace import Workspace
from registry import audit_log, dossier
from registry.approval import approve
from registry.mlflow_registry import move_champion, register_model, set_tags
from registry.registration import register


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Version 1 served and was followed by version 2; version 3 was refused."""
    folder = tmp_path_factory.mktemp("dossier")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIGHTBOX_HOME", str(folder / "home"))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        prepare_registry(Workspace(folder / "home"))
        for seed, outcome in ((1, "pass"), (2, "pass"), (3, "fail")):
            register("chest", **parts(folder / str(seed), seed=seed, outcome=outcome))
            record_opening("e" * 64, f"{seed}" * 64, None, f"look <{seed}>")
            if outcome == "pass":
                approve("chest", str(seed), actor="Ada <L>", reason="read it")
                move_champion("chest", str(seed), actor="step:deploy_canary", reason="released")
        yield {number: dossier.lineage("chest", number) for number in ("1", "2", "3")}


def test_the_machine_form_is_json_and_whole(served: dict[str, Any]) -> None:
    document = json.loads(json.dumps(served["1"]))
    assert document["approval"]["actor"] == "Ada <L>"
    assert [e["action"] for e in document["audit"]["entries"]] == [
        "registered",
        "approved",
        "champion",
    ]
    assert document["audit"]["agrees"]


def test_openings_of_the_test_split_are_told_with_who_and_why(served: dict[str, Any]) -> None:
    document = served["1"]
    assert [o["reason"] for o in document["openings"]] == ["look <1>", "look <2>", "look <3>"]
    text, page = dossier.as_text(document), dossier.as_html(document)
    assert "openings of the test split: 3 in this workspace" in text
    assert f"{document['openings'][0]['actor']}: look <1>" in text
    assert "<td>look &lt;3&gt;</td>" in page


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ({}, ["pseudonyms derived under a key, dates modified", "not Safe Harbor: `dates: mod"]),
        ({"pseudonyms": "random", "dates": "removed", "basis": "safe_harbor"},
         ["pseudonyms drawn, dates removed", "called safe harbor"]),
        ({"text_in_pixels": {"action": "mask", "ocr": True}}, ["looked for by a detector"]),
        ({"basis": "expert_determination", "basis_reference": "report 7"},
         ["called expert determination report 7"]),
    ],
)  # fmt: skip
def test_what_was_done_to_identities_is_told(
    served: dict[str, Any], policy: dict[str, Any], said: list[str]
) -> None:
    how = DeidentificationPolicy.model_validate(policy)
    risk = risk_summary(pd.DataFrame({"patient_id": ["a", "b", "c"], "sex": ["F", "F", "M"]}))
    document = json.loads(json.dumps(served["1"]))
    document["data"]["deidentification"] |= {
        "volumes": 3,
        "policy": how.model_dump(mode="json"),
        "policy_digest": policy_digest(how),
        "not_safe_harbor": list(not_safe_harbor(how)),
        "checks": {"strings": 0, "pixels": 0},
        "risk": asdict(risk),
    }
    said += [
        policy_digest(how)[:12],
        "0 leaks by 2 checks",
        "3 NIfTI volumes",
        "1 of 3 patients are alone",
    ]
    for told in said:
        assert told in dossier.as_text(document)
        assert told in html.unescape(dossier.as_html(document))


def test_the_report_on_the_data_is_kept_and_linked(served: dict[str, Any]) -> None:
    document = served["2"]
    assert Path(document["validation_report"].removeprefix("file://")).read_text() == "a page"
    page, text = dossier.as_html(document), dossier.as_text(document)
    assert f'href="{document["validation_report"]}"' in page
    assert "<li>scanner: alone tells the classes apart</li>" in page
    for told in ("1 nothing to check, 1 passed; 1 warnings", "strong shortcuts: scanner"):
        assert told in text
        assert told in page
    del document["data"]["validation"]  # a version from before
    document |= {"validation_report": None}
    assert "strong shortcuts" not in dossier.as_html(document) + dossier.as_text(document)


def test_service_is_told_from_until(served: dict[str, Any]) -> None:
    (first,), (second,) = served["1"]["service"], served["2"]["service"]
    assert first["until"] == second["from"]
    assert second["until"] is None
    assert served["3"]["service"] == []


def test_a_model_that_nobody_ever_released_has_a_dossier(
    registry_home: Workspace, tmp_path: Path
) -> None:
    register("chest", **parts(tmp_path, seed=1, outcome="fail"))
    assert dossier.lineage("chest", "1")["service"] == []


@pytest.mark.parametrize(
    ("number", "standing"),
    [
        ("1", "approved by Ada <L>, not in service"),
        ("2", "in service, approved by Ada <L>"),
        ("3", "refused by the gate"),
    ],
)
def test_text_and_page_begin_with_what_the_version_may_do(
    served: dict[str, Any], number: str, standing: str
) -> None:
    assert dossier.as_text(served[number]).splitlines()[0] == f"chest:{number}  {standing}"
    assert standing.lower() in words(dossier.as_html(served[number])).lower()


def test_text_and_page_show_the_same_numbers_and_reasons(served: dict[str, Any]) -> None:
    document = served["1"]
    text, page = dossier.as_text(document), words(dossier.as_html(document))
    for fact in (
        *("0.910 (0.850 to 0.950), n 150", "0.020 (-0.010 to 0.050), n 150"),
        *("read it", "2026c", document["audit"]["head"]["hash"]),
        document["verdict"]["rules"][0]["sentence"],
    ):
        assert fact in text
        assert fact in page
    for digest in (document["model"]["digest"], document["data"]["manifest_digest"]):
        assert digest in page


def test_the_page_loads_nothing_and_escapes_what_people_wrote(served: dict[str, Any]) -> None:
    # A link is followed by a person, never by the page.
    page = dossier.as_html(served["1"]).replace(
        f'<a href="{served["1"]["validation_report"]}">', ""
    )
    assert not re.search(r"<(script|link|img|iframe)|\b(src|href)=|url\(|@import|https?:", page)
    assert "Ada &lt;L&gt;" in page


def test_a_refused_model_is_refused_at_first_sight(served: dict[str, Any]) -> None:
    page = dossier.as_html(served["3"])
    assert '<header class="banner fail">' in page
    assert '<header class="banner pass">' in dossier.as_html(served["2"])


def test_intervals_are_drawn_to_one_scale(served: dict[str, Any]) -> None:
    forest = dossier._forest(served["1"]["evaluation"])
    assert forest["axis"] == 0.5  # the lowest bound is 0.58
    rows = dict(forest["rows"])
    auroc = rows["sex: F"][0]
    assert (auroc["low"], auroc["estimate"], auroc["high"]) == (72.0, 86.0, 94.0)
    assert rows["age band: <40"][0] == {"text": "no number: 2 patients, 10 are needed, n 2"}


def test_a_whole_without_a_number_still_makes_a_page(served: dict[str, Any]) -> None:
    evaluation = json.loads(json.dumps(served["1"]["evaluation"])) | {"comparison": None}
    nothing = evaluation["subgroups"]["age_band"]["<40"]["auroc"]
    evaluation["metrics"] = dict.fromkeys(evaluation["metrics"], nothing)
    document = served["1"] | {
        "evaluation": evaluation | {"champion": None},
        "compared_with": None,
    }
    page = words(dossier.as_html(document))
    assert "no number: 2 patients, 10 are needed" in page
    assert "no champion to compare with" in page
    assert "no number" in dossier.as_text(document)


def test_a_broken_log_and_edited_tags_are_told_at_once(served: dict[str, Any]) -> None:
    broken = served["1"] | {"audit": served["1"]["audit"] | {"fault": {"seq": 2, "what": "x"}}}
    assert "✗ The audit log is broken: row 2 x." in dossier.as_text(broken)
    edited = served["1"] | {"audit": served["1"]["audit"] | {"agrees": False}}
    assert "not what the audit log saw" in words(dossier.as_html(edited))


def test_a_version_with_forged_tags_has_no_dossier(
    registry_home: Workspace, tmp_path: Path
) -> None:
    register("chest", **parts(tmp_path / "parts", outcome="fail"))
    set_tags("chest", "1", {"verdict": "pass"})
    with pytest.raises(BadInput, match="somebody changed them"):
        dossier.lineage("chest", "1")
    assert audit_log.verify() is None


def test_a_version_without_lineage_is_named(registry_home: Workspace, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    register_model("chest", tmp_path / "model", {}, {})
    with pytest.raises(BadInput, match="chest:1 has no artifact 'lineage'"):
        dossier.lineage("chest", "1")


def words(page: str) -> str:
    """What a reader sees, in one line."""
    seen: list[str] = []

    class Reader(HTMLParser):
        def handle_data(self, data: str) -> None:
            seen.append(data)

    Reader().feed(page)
    return " ".join("".join(seen).split())
