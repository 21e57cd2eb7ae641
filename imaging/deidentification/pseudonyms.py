"""Keyed names for patients and UIDs, and keyed shifts of dates."""

from dataclasses import dataclass
from datetime import timedelta

from lineage.digest import keyed_digest


@dataclass(frozen=True)
class Pseudonyms:
    """Keyed names: the same in every file, process and run; nobody without the key can go back."""

    key: bytes

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
