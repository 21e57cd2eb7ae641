"""The table against the decisions, read here by itself."""

import csv
from collections import Counter
from itertools import combinations, product
from typing import Any, get_args

import pytest
from pydicom.datadict import DicomDictionary

from imaging.deidentification import profile
from imaging.deidentification.policy import CID_7050, DeidentificationPolicy, Retained
from imaging.deidentification.table import TABLE

TIMES = {"DA", "DT", "TM"}
TIMEZONE = 0x00080201
APART = (0x00281199, 0x00281214)  # UIDs of palettes: the colours that these give are written
OPTIONS = (
    "retain_safe_private", "retain_uids", "retain_device_identity", "retain_institution_identity",
    "retain_patient_characteristics", "retain_long_full_dates", "retain_long_modified_dates",
    "clean_descriptors", "clean_structured_content", "clean_graphics",
)  # fmt: skip


def lines() -> list[dict[str, str]]:
    with TABLE.open(newline="") as file:
        return list(csv.DictReader(file))


def known() -> list[tuple[int, str, dict[str, str]]]:
    """The lines of single attributes that pydicom knows, with each VR that each may have."""
    found = []
    for line in lines():
        if line["tag"].startswith("(") and "X" not in line["tag"]:
            tag = int(line["tag"][1:5] + line["tag"][6:10], 16)
            if tag >> 16 >= 8 and tag in DicomDictionary and tag not in APART:
                found += [(tag, vr, line) for vr in DicomDictionary[tag][0].split(" or ")]
    return found


KNOWN = known()


def policies() -> list[DeidentificationPolicy]:
    groups = get_args(Retained)
    retained = [c for n in range(len(groups) + 1) for c in combinations(groups, n)]
    return [
        DeidentificationPolicy(dates=dates, retain=retain, descriptors=words)
        for dates, retain, words in product(
            ("removed", "modified", "full"), retained, ((), ("axial",))
        )
    ]


def test_the_table_is_whole() -> None:
    found = lines()
    assert len(found) == 656
    assert Counter(line["basic_profile_2026c"] for line in found) == {
        "X": 416, "D": 93, "U": 55, "Z": 42, "X/D": 23, "X/Z": 11, "X/Z/D": 8, "Z/D": 6, "X/Z/U*": 2
    }  # fmt: skip
    assert {line[option] for line in found for option in OPTIONS} == {"", "K", "C", "?"}
    assert sum(line["retain_uids"] == "?" for line in found) == 35
    assert len(KNOWN) > 500


@pytest.mark.parametrize(
    "policy", policies(), ids=lambda p: f"{p.dates} {p.retain} {p.descriptors}"
)
def test_an_attribute_stays_only_where_an_option_in_force_says_so(
    policy: DeidentificationPolicy,
) -> None:
    rules = profile.rules(policy)
    for tag, vr, line in KNOWN:
        action = rules.decide(tag, vr)
        kept = any(line[f"retain_{group}"] == "K" for group in policy.retain)
        if vr in TIMES or tag == TIMEZONE:
            stays = policy.dates == "full" and line["retain_long_full_dates"] == "K"
            moves = policy.dates == "modified" and line["retain_long_modified_dates"] == "C"
            wanted = "keep" if stays else "shift" if moves and vr in ("DA", "DT") else None
        elif kept:
            wanted = "enter" if vr == "SQ" else "keep"
        else:
            cleaned = line["clean_descriptors"] == "C" or (
                "patient_characteristics" in policy.retain
                and line["retain_patient_characteristics"] == "C"
            )
            texts = {"LO", "LT", "SH", "ST", "UC", "UT"}
            wanted = "words" if policy.descriptors and cleaned and vr in texts else None
        basic = line["basic_profile_2026c"]
        if wanted is None:
            assert action in {
                "X": {"remove"}, "Z": {"empty"}, "X/Z": {"empty"}, "U": {"uid"}, "X/Z/U*": {"enter"}
            }.get(basic, {"dummy"}), (hex(tag), vr)  # fmt: skip
        else:
            assert action == wanted, (hex(tag), vr)


def test_where_the_options_are_not_known_the_profile_wins() -> None:
    everything = DeidentificationPolicy(
        dates="full", retain=get_args(Retained), descriptors=("axial",)
    )
    rules = profile.rules(everything)
    unknown = [(tag, vr, line) for tag, vr, line in KNOWN if line["retain_uids"] == "?"]
    assert len(unknown) > 8
    for tag, vr, _ in unknown:
        assert rules.decide(tag, vr) not in ("keep", "words", "enter", "shift"), hex(tag)


@pytest.mark.parametrize(
    ("tag", "vr", "action"),
    [
        (0x00110001, "LO", "remove"),  # private
        (0x00080000, "UL", "remove"),  # group length
        (0x00000110, "US", "remove"),  # of a command
        (0x00041220, "SQ", "remove"),  # of a directory
        (0x50000010, "US", "remove"),  # curves
        (0x60020010, "US", "remove"),  # overlays, the second plane
        (0x00080002, "CS", "remove"),  # no such attribute
        (0x00080005, "CS", "remove"),  # what is written is UTF-8
        (0x00080300, "SQ", "remove"),
        (0x00281201, "OW", "remove"),  # palette
        (0x00281101, "US or SS", "remove"),
        (0x00101020, "LO", "remove"),  # PatientSize in another VR
        (0x00180024, "DS", "remove"),  # SequenceName, too
        (0x00081190, "UR", "remove"),  # RetrieveURL
        (0x00180024, "SH", "remove"),  # SequenceName
        (0x00080104, "LO", "remove"),  # CodeMeaning
        (0x00142006, "PN", "empty"),  # EvaluatorName
        (0x00080060, "CS", "keep"),
        (0x00280010, "US", "keep"),
        (0x00280106, "US or SS", "keep"),
        (0x00080070, "LO", "keep"),  # Manufacturer
        (0x00283006, "US or OW", "keep"),  # LUTData
        (0x7FE00010, "OB or OW", "remove"),  # pixels are added apart
        (0x52009230, "SQ", "enter"),
        (0x00080016, "UI", "uid"),  # SOPClassUID: a standard UID stays itself
        (0x00101022, "DS", "keep"),  # PatientBodyMassIndex
    ],
)
def test_what_the_table_does_not_list_is_judged_by_its_kind(
    tag: int, vr: str, action: profile.Action
) -> None:
    assert profile.rules(DeidentificationPolicy()).decide(tag, vr) == action


@pytest.mark.parametrize(
    ("dates", "day", "time"),
    [
        ("removed", "remove", "remove"),
        ("modified", "shift", "remove"),
        ("full", "keep", "keep"),
    ],
)
def test_times_that_the_table_does_not_list(dates: Any, day: str, time: str) -> None:
    rules = profile.rules(DeidentificationPolicy(dates=dates))
    assert rules.decide(0x00143076, "DA") == rules.decide(0x00080404, "DT") == day
    assert rules.decide(0x00143077, "TM") == time


def test_numbers_of_the_patient_go_with_the_characteristics() -> None:
    rules = profile.rules(DeidentificationPolicy(retain=()))
    assert rules.decide(0x00101022, "DS") == "remove"
    assert rules.decide(0x00101010, "AS") == "remove"
    assert rules.decide(0x00280010, "US") == "keep"


SAFE = DeidentificationPolicy(safe_private={"MAKER": ("(0019,xx10)", "(001b,xxFE)")})


@pytest.mark.parametrize(
    ("tag", "creator", "vr", "declared", "action"),
    [
        (0x00191010, "MAKER", "DS", False, "keep"),
        (0x00191110, "MAKER", "LO", False, "keep"),  # in whichever block
        (0x001B10FE, "MAKER", "SQ", False, "enter"),
        (0x00191010, "MAKER", "UI", False, "uid"),
        (0x00191010, "MAKER", "DA", False, "shift"),
        (0x00191010, "MAKER", "PN", False, "remove"),
        (0x00191010, "MAKER", "UN", False, "remove"),
        (0x00191010, "OTHER", "DS", False, "remove"),
        (0x00191010, "MAKER 2", "DS", False, "remove"),
        (0x00191011, "MAKER", "DS", False, "remove"),
        (0x00211010, "MAKER", "DS", False, "remove"),
        (0x00191011, "MAKER", "DS", True, "remove"),  # declared, which this policy does not trust
    ],
)
def test_private_elements_stay_by_creator_and_place(
    tag: int, creator: str, vr: str, declared: bool, action: profile.Action
) -> None:
    assert profile.rules(SAFE).private(tag, creator, vr, declared) == action


def test_a_declaration_counts_where_the_policy_trusts_it() -> None:
    rules = profile.rules(DeidentificationPolicy(declared_safe_private=True))
    assert rules.private(0x00191011, "ANYBODY", "DS", True) == "keep"
    assert rules.private(0x00191011, "ANYBODY", "DS", False) == "remove"


@pytest.mark.parametrize(
    ("settings", "masked", "codes"),
    [
        ({}, False, ["113100", "113107", "113108"]),
        ({}, True, ["113100", "113101", "113107", "113108"]),
        ({"dates": "removed", "retain": ()}, False, ["113100"]),
        ({"dates": "full", "retain": ("uids",)}, False, ["113100", "113106", "113110"]),
        (
            {"dates": "removed", "retain": ("device_identity", "institution_identity")},
            False,
            ["113100", "113109", "113112"],
        ),
        (
            {"dates": "removed", "retain": (), "descriptors": ("axial",)},
            False,
            ["113100", "113105"],
        ),
        (
            {"dates": "removed", "retain": (), "safe_private": {"A": ("(0019,xx10)",)}},
            False,
            ["113100", "113111"],
        ),
        (
            {"dates": "removed", "retain": (), "declared_safe_private": True},
            False,
            ["113100", "113111"],
        ),
    ],
)
def test_codes_are_the_options_in_force(
    settings: dict[str, Any], masked: bool, codes: list[str]
) -> None:
    assert list(profile.codes(DeidentificationPolicy(**settings), masked)) == codes


def test_meanings_are_the_standard_s() -> None:
    from pydicom.sr._concepts_dict import concepts

    context_group = {
        code: meaning
        for entry in concepts["DCM"].values()
        for code, (meaning, groups) in entry.items()
        if 7050 in groups
    }
    assert context_group == CID_7050


def test_the_digest_names_each_setting_and_each_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    changed: list[dict[str, Any]] = [
        {}, {"pseudonyms": "random"}, {"dates": "full"}, {"retain": ()}, {"ages_above_89": "kept"},
        {"descriptors": ("axial",)}, {"safe_private": {"A": ("(0019,xx10)",)}},
        {"declared_safe_private": True}, {"text_in_pixels": {"action": "mask"}},
    ]  # fmt: skip
    digests = [profile.policy_digest(DeidentificationPolicy(**c)) for c in changed]
    assert len(set(digests)) == len(digests)
    assert profile.policy_digest() == digests[0]
    monkeypatch.setattr(profile, "KEPT_TEXT", profile.KEPT_TEXT | {"SequenceName"})
    assert profile.policy_digest() not in digests


def test_the_digest_names_the_text_detector_where_it_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    policies = [DeidentificationPolicy(text_in_pixels={"ocr": looks}) for looks in (False, True)]
    before = [profile.policy_digest(policy) for policy in policies]
    monkeypatch.setattr(profile.ocr, "MODEL_SHA256", "another")
    after = [profile.policy_digest(policy) for policy in policies]
    assert [old == new for old, new in zip(before, after, strict=True)] == [True, False]
