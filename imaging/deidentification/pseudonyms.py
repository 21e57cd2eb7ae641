"""Names for patients and UIDs, and shifts of dates: derived under a key, or drawn."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import ClassVar, Protocol

from imaging.deidentification.policy import DeidentificationPolicy
from lineage.digest import keyed_digest


class Names(Protocol):
    """Other names, the same in every file, process and run."""

    @property
    def key(self) -> bytes:
        """The secret behind them."""

    @property
    def name(self) -> str:
        """Of the file of drawn names; empty where the key alone makes them."""

    def uid(self, uid: str) -> str:
        """A UID under 2.25 (PS3.5 B.2); the standard's own stay."""

    def patient(self, patient_id: str) -> str:
        """16 hex digits for a patient's identifier."""

    def shift(self, patient_id: str) -> timedelta:
        """How far back all of a patient's dates move: between 100 and 110 years."""

    def close(self) -> None:
        """Nothing more will be asked."""


@dataclass(frozen=True)
class Pseudonyms:
    """Keyed names: the same in every file, process and run; nobody without the key can go back."""

    key: bytes
    name: ClassVar[str] = ""

    def uid(self, uid: str) -> str:
        """A UID under 2.25 (PS3.5 B.2) from 128 bits of HMAC; the standard's own stay."""
        from pydicom._uid_dict import UID_dictionary

        uid = uid.strip(" \0")
        if not uid or uid in UID_dictionary:
            return uid
        return f"2.25.{int(keyed_digest(self.key, 'uid', uid)[:32], 16)}"

    def patient(self, patient_id: str) -> str:
        """16 hex digits for a patient's identifier."""
        return keyed_digest(self.key, "patient", patient_id.strip(" \0"))[:16]

    def shift(self, patient_id: str) -> timedelta:
        """How far back all of a patient's dates move: between 100 and 110 years.

        Further than a life is long, so that no moved date can equal another true one of the same
        patient, and nobody takes a moved date for a true one.
        """
        draw = int(keyed_digest(self.key, "shift", patient_id.strip(" \0"))[:13], 16)
        return timedelta(days=36525 + draw % 3653)

    def close(self) -> None:
        """There is nothing to close."""


def open_names(policy: DeidentificationPolicy, key: bytes, crosswalk: Path) -> Names:
    """The names that a policy asks for.

    Args:
        policy: Says whether names are derived or drawn.
        key: Derives them, or encrypts the crosswalk.
        crosswalk: File of the drawn ones; only those need it.

    Raises:
        BadInput: The crosswalk was made under another key, or others can read it.
    """
    if policy.pseudonyms == "hmac":
        return Pseudonyms(key)
    from imaging.deidentification.crosswalk import Crosswalk

    return Crosswalk(crosswalk, key)


def matching(candidates: Iterable[str], pseudonym: str, key: bytes) -> list[str]:
    """Those of many identifiers whose derived name this is; without candidates nothing tells."""
    names = Pseudonyms(key)
    return [c for c in candidates if pseudonym in (names.patient(c), names.uid(c))]
