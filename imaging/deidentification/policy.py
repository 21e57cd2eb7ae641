"""What is done to identities, as settings: the basic profile of PS3.15 Annex E and its options."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Retained = Literal["uids", "device_identity", "institution_identity", "patient_characteristics"]


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


class TextInPixels(BaseModel):
    """PS3.15 E.3.1: what becomes of images that may show text."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    action: Literal["hold", "mask"] = "hold"
    devices: tuple[Device, ...] = ()  # the first that fits counts; none: the image is held
    ocr: bool = False  # look for text in every image; needs the extra `ocr`


class DeidentificationPolicy(BaseModel):
    """The Basic Application Confidentiality Profile and the options applied on top of it.

    Attributes:
        pseudonyms: `hmac` derives codes from identifiers under a secret key; `random` draws them,
            and keeps which is whose in an encrypted crosswalk.
        dates: Removed, moved by patient (PS3.15 E.3.6, modified), or left (full).
        retain: Groups of attributes that stay (E.3.7 to E.3.9, E.3.11).
        ages_above_89: Put into one group of 90, or left as they are.
        descriptors: Words that may stay in descriptions (E.3.5); all others go. Empty: no text.
        safe_private: Private elements that stay (E.3.10), by creator, such as (0019,xx10).
        text_in_pixels: E.3.1.
        basis: What the result may be called; `basis_reference` names the determination or the
            agreement (45 CFR 164.514(b)(1), (e)).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    pseudonyms: Literal["hmac", "random"] = "hmac"
    dates: Literal["removed", "modified", "full"] = "modified"
    retain: tuple[Retained, ...] = ("patient_characteristics",)
    ages_above_89: Literal["grouped", "kept"] = "grouped"
    descriptors: tuple[str, ...] = ()
    safe_private: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    text_in_pixels: TextInPixels = TextInPixels()
    basis: Literal["none", "safe_harbor", "expert_determination", "limited_data_set"] = "none"
    basis_reference: str = ""
