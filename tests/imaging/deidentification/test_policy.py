from itertools import product
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import ValidationError

from imaging.deidentification.policy import DeidentificationPolicy, Retained, not_safe_harbor

SHIPPED = Path(__file__).parents[3] / "configs" / "deidentification"
# Each with what makes it a reason against Safe Harbor, and the paragraph of 45 CFR 164.514.
AGAINST: dict[str, tuple[dict[str, Any], str]] = {
    "moved dates": ({"dates": "modified"}, "(C)"),
    "full dates": ({"dates": "full"}, "(C)"),
    "derived codes": ({"pseudonyms": "hmac"}, "164.514(c)(1)"),
    "ages": ({"ages_above_89": "kept"}, "(C)"),
    "uids": ({"retain": ("uids",)}, "(R)"),
    "devices": ({"retain": ("device_identity",)}, "(M)"),
    "institutions": ({"retain": ("institution_identity",)}, "(B)"),
    "numbers": ({"descriptors": ("T2", "7651234")}, "(R)"),
    "private": ({"safe_private": {"MAKER": ("(0019,xx10)",)}}, "(R)"),
    "declared private": ({"declared_safe_private": True}, "(R)"),
    "found text": ({"text_in_pixels": {"ocr": True, "trust_ocr": True}}, "(A)"),
}
ALLOWED = {"pseudonyms": "random", "dates": "removed", "retain": ("patient_characteristics",)}


@pytest.mark.parametrize("name", AGAINST)
def test_each_reason_against_safe_harbor_is_a_sentence_of_its_own(name: str) -> None:
    changed, paragraph = AGAINST[name]
    (reason,) = not_safe_harbor(DeidentificationPolicy(**ALLOWED | changed))
    assert paragraph in reason and reason.endswith(".")
    with pytest.raises(ValidationError) as caught:
        DeidentificationPolicy(**ALLOWED | changed, basis="safe_harbor")
    assert reason in str(caught.value)


def test_over_all_combinations_safe_harbor_is_what_the_rule_allows() -> None:
    """The rule said again, whole: nothing derived, dated, unique, or from where text is free."""
    accepted = []
    groups = get_args(Retained)
    retained = [
        tuple(g for g, on in zip(groups, bits, strict=True) if on)
        for bits in product([0, 1], repeat=len(groups))
    ]
    choices = {
        "pseudonyms": ("hmac", "random"),
        "dates": ("removed", "modified", "full"),
        "retain": retained,
        "ages_above_89": ("grouped", "kept"),
        "descriptors": ((), ("axial", "T2"), ("20190305",)),
        "safe_private": ({}, {"MAKER": ("(0019,xx10)",)}),
        "declared_safe_private": (False, True),
        "text_in_pixels": ({}, {"ocr": True}, {"ocr": True, "trust_ocr": True}),
    }
    for values in product(*choices.values()):
        policy = dict(zip(choices, values, strict=True))
        reasons = not_safe_harbor(DeidentificationPolicy(**policy))
        assert len(set(reasons)) == len(reasons)
        if not reasons:
            DeidentificationPolicy(**policy, basis="safe_harbor")
            accepted.append(policy)
    assert len(accepted) == 2 * 2 * 2  # characteristics or not, words or none, looked or not
    for policy in accepted:
        assert (policy["pseudonyms"], policy["dates"]) == ("random", "removed")
        assert set(policy["retain"]) <= {"patient_characteristics"}
        assert policy["ages_above_89"] == "grouped" and not policy["safe_private"]
        assert policy["text_in_pixels"] != {"ocr": True, "trust_ocr": True}


def test_trust_without_a_look_is_refused() -> None:
    with pytest.raises(ValidationError, match="nothing is looked for without `ocr: true`"):
        DeidentificationPolicy(text_in_pixels={"trust_ocr": True})


@pytest.mark.parametrize("basis", ["expert_determination", "limited_data_set"])
@pytest.mark.parametrize("reference", ["", "  "])
def test_another_basis_must_be_named(basis: str, reference: str) -> None:
    with pytest.raises(ValidationError, match="basis_reference"):
        DeidentificationPolicy(basis=basis, basis_reference=reference)
    DeidentificationPolicy(basis=basis, basis_reference="Determination 2026-17")


def test_a_limited_data_set_holds_no_serial_numbers() -> None:
    with pytest.raises(ValidationError, match="serial numbers"):
        DeidentificationPolicy(
            basis="limited_data_set", basis_reference="DUA 4", retain=("device_identity",)
        )


@pytest.mark.parametrize(
    "wrong",
    [
        {"dates": "shifted"},
        {"retain": ["names"]},
        {"descriptors": ["two words"]},
        {"safe_private": {"MAKER": ["(0018,xx10)"]}},  # an even group
        {"safe_private": {"MAKER": ["(0019,1010)"]}},  # the block is the file's to choose
        {"safe_private": {"": ["(0019,xx10)"]}},
        {"pseudonym": "random"},
        {"text_in_pixels": {"devices": [{}]}},  # would let every image pass
    ],
)
def test_what_cannot_be_meant_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        DeidentificationPolicy(**wrong)


def test_equal_policies_are_one() -> None:
    one, two = (DeidentificationPolicy(safe_private={"A": ("(0019,xx10)",)}) for _ in range(2))
    assert one == two and hash(one) == hash(two)
    assert one != DeidentificationPolicy()


def test_the_shipped_policies_are_what_they_say() -> None:
    research, strict, harbor = (
        DeidentificationPolicy.model_validate(
            yaml.safe_load((SHIPPED / f"{name}.yaml").read_text())
        )
        for name in ("research", "strict", "safe-harbor")
    )
    assert research == DeidentificationPolicy()
    assert strict.retain == () and not_safe_harbor(strict) == ()
    assert harbor.basis == "safe_harbor"
