"""What is done to identities, as settings: the basic profile of PS3.15 Annex E and its options."""

import re
from collections.abc import Callable
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

Retained = Literal["uids", "device_identity", "institution_identity", "patient_characteristics"]
Word = Annotated[str, StringConstraints(pattern=r"^[^\W_]+$")]  # letters and digits of any script
Creator = Annotated[str, StringConstraints(pattern=r"^[\x20-\x5b\x5d-\x7e]{1,64}$")]
# Odd groups; xx stands for the block that the creator has reserved (PS3.5 7.8.1).
PrivateElement = Annotated[
    str, StringConstraints(pattern=r"^\([0-9A-Fa-f]{3}[13579BDFbdf],xx[0-9A-Fa-f]{2}\)$")
]
# PS3.16 CID 7050: the profile and its options, as what they are called in a cleaned file.
CID_7050 = {
    "113100": "Basic Application Confidentiality Profile",
    "113101": "Clean Pixel Data Option",
    "113102": "Clean Recognizable Visual Features Option",
    "113103": "Clean Graphics Option",
    "113104": "Clean Structured Content Option",
    "113105": "Clean Descriptors Option",
    "113106": "Retain Longitudinal Temporal Information Full Dates Option",
    "113107": "Retain Longitudinal Temporal Information Modified Dates Option",
    "113108": "Retain Patient Characteristics Option",
    "113109": "Retain Device Identity Option",
    "113110": "Retain UIDs Option",
    "113111": "Retain Safe Private Option",
    "113112": "Retain Institution Identity Option",
}


class Region(BaseModel):
    """A rectangle of pixels; x and y count from 0 at the upper left."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    x: int = Field(ge=0)
    y: int = Field(ge=0)
    width: int = Field(ge=1)
    height: int = Field(ge=1)


class Device(BaseModel):
    """Where a kind of device writes text; without regions it writes none.

    What is left out may be anything; texts are compared whole, without regard to case.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    modality: str | None = None
    manufacturer: str | None = None
    model_name: str | None = None
    rows: int | None = None
    columns: int | None = None
    regions: tuple[Region, ...] = ()

    @model_validator(mode="after")
    def _names_a_device(self) -> Self:
        if self == type(self).model_construct():
            raise ValueError("a rule that names nothing would let every image pass unseen")
        return self


class TextInPixels(BaseModel):
    """PS3.15 E.3.1: what becomes of images that may show text."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    action: Literal["hold", "mask"] = "hold"
    devices: tuple[Device, ...] = ()  # the first that fits counts; none: the image is held
    ocr: bool = False  # look for text in every image; needs the extra `ocr`
    # Whether what it finds is enough where text is declared, or common, and no device fits.
    trust_ocr: bool = False

    @model_validator(mode="after")
    def _trusts_what_is_done(self) -> Self:
        if self.trust_ocr and not self.ocr:
            raise ValueError("trust_ocr: nothing is looked for without `ocr: true`")
        return self


class DeidentificationPolicy(BaseModel):
    """The Basic Application Confidentiality Profile and the options applied on top of it.

    Attributes:
        pseudonyms: `hmac` derives codes from identifiers under a secret key; `random` draws them,
            and keeps which is whose in an encrypted crosswalk.
        dates: Removed, moved by patient (PS3.15 E.3.6, modified), or left (full). Times of day
            stay under `full` only.
        retain: Groups of attributes that stay (E.3.7 to E.3.9, E.3.11).
        ages_above_89: Put into one group of 90, or left as they are.
        descriptors: Words that may stay in descriptions (E.3.5); all others go. Empty: no text.
        safe_private: Private elements that stay (E.3.10), by creator, such as (0019,xx10).
        declared_safe_private: Whether those stay, too, that the file itself declares to be safe
            (0008,0300).
        text_in_pixels: E.3.1.
        basis: What the result may be called; `basis_reference` names the determination or the
            agreement (45 CFR 164.514(b)(1), (e)).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    pseudonyms: Literal["hmac", "random"] = "hmac"
    dates: Literal["removed", "modified", "full"] = "modified"
    retain: tuple[Retained, ...] = ("patient_characteristics",)
    ages_above_89: Literal["grouped", "kept"] = "grouped"
    descriptors: tuple[Word, ...] = ()
    safe_private: dict[Creator, tuple[PrivateElement, ...]] = Field(default_factory=dict)
    declared_safe_private: bool = False
    text_in_pixels: TextInPixels = TextInPixels()
    basis: Literal["none", "safe_harbor", "expert_determination", "limited_data_set"] = "none"
    basis_reference: str = ""

    @model_validator(mode="after")
    def _claims_only_what_holds(self) -> Self:
        if reasons := refusals(self):
            raise ValueError(f"basis: {self.basis} is refused. {' '.join(reasons)}")
        return self

    def __hash__(self) -> int:
        return hash(self.model_dump_json())  # a dict among the fields has no hash of its own


def not_safe_harbor(policy: DeidentificationPolicy) -> tuple[str, ...]:
    """Why the result is not Safe Harbor (45 CFR 164.514(b)(2)): a sentence for each reason."""
    return tuple(reason for holds, reason in _SAFE_HARBOR if holds(policy))


def refusals(policy: DeidentificationPolicy) -> tuple[str, ...]:
    """Why the result must not be called what `basis` says."""
    if policy.basis == "none":
        return ()
    if policy.basis == "safe_harbor":
        return not_safe_harbor(policy)
    unnamed = () if policy.basis_reference.strip() else (_UNNAMED,)
    holds, reason = _SERIAL_NUMBERS
    limited = policy.basis == "limited_data_set" and holds(policy)
    return (*unnamed, reason) if limited else unnamed


_Reason = tuple[Callable[[DeidentificationPolicy], bool], str]

_SERIAL_NUMBERS: _Reason = (
    lambda policy: "device_identity" in policy.retain,
    "`retain: device_identity` keeps serial numbers of devices (164.514(b)(2)(i)(M), (e)(2)(xii)).",
)
_SAFE_HARBOR: tuple[_Reason, ...] = (
    (
        lambda policy: policy.dates == "modified",
        "`dates: modified` leaves dates that are only moved (164.514(b)(2)(i)(C)).",
    ),
    (
        lambda policy: policy.dates == "full",
        "`dates: full` leaves dates of care (164.514(b)(2)(i)(C)).",
    ),
    (
        lambda policy: policy.pseudonyms == "hmac",
        "`pseudonyms: hmac` derives codes from identifiers (164.514(c)(1)); random ones do not.",
    ),
    (
        lambda policy: policy.ages_above_89 == "kept",
        "`ages_above_89: kept` leaves ages over 89 (164.514(b)(2)(i)(C)).",
    ),
    (
        lambda policy: "uids" in policy.retain,
        "`retain: uids` keeps unique identifying numbers (164.514(b)(2)(i)(R)).",
    ),
    _SERIAL_NUMBERS,
    (
        lambda policy: "institution_identity" in policy.retain,
        "`retain: institution_identity` keeps addresses below a state (164.514(b)(2)(i)(B)).",
    ),
    (
        lambda policy: any(re.search(r"\d{3}", word) for word in policy.descriptors),
        "`descriptors` holds words with three digits or more, which may be parts of dates or "
        "numbers (164.514(b)(2)(i)(C), (R)).",
    ),
    (
        lambda policy: bool(policy.safe_private),
        "`safe_private` keeps elements whose content no standard defines (164.514(b)(2)(i)(R)).",
    ),
    (
        lambda policy: policy.declared_safe_private,
        "`declared_safe_private` keeps what a file says of itself (164.514(b)(2)(i)(R)).",
    ),
    (
        lambda policy: policy.text_in_pixels.ocr and policy.text_in_pixels.trust_ocr,
        "`text_in_pixels` trusts a program to find text, and none finds all (164.514(b)(2)(i)(A)).",
    ),
)
_UNNAMED = "`basis_reference` must name the determination (164.514(b)(1)) or agreement (e)(4)."
