"""Table E.1-1 of PS3.15 under a policy, in the verifier's own reading: shared with no cleaning."""

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from imaging.deidentification.policy import DeidentificationPolicy
from imaging.deidentification.table import TABLE

DEFAULT_POLICY = DeidentificationPolicy()
DAYS, TIMES = {"DA", "DT"}, {"DA", "DT", "TM"}

# The settings under which each code of CID 7050 is written.
_BASIC, CLEAN_PIXELS = "113100", "113101"
_RETAINED = {  # the setting: its code, and its column in the table
    "patient_characteristics": ("113108", "retain_patient_characteristics"),
    "device_identity": ("113109", "retain_device_identity"),
    "uids": ("113110", "retain_uids"),
    "institution_identity": ("113112", "retain_institution_identity"),
}


@dataclass(frozen=True)
class Rules:
    """Table E.1-1 under a policy.

    Attributes:
        actions: Of the basic profile, by tag.
        kept: Tags that an option keeps whole.
        words: What descriptions may say.
        codes: What DeidentificationMethodCodeSequence must say.
    """

    actions: Mapping[int, str]
    kept: frozenset[int]
    words: frozenset[str]
    codes: tuple[str, ...]


@cache
def rules_of(policy: DeidentificationPolicy) -> Rules:
    """Read the table as the policy's options change it."""
    keeping = {_RETAINED[name][1] for name in policy.retain}
    actions, kept = {}, set()
    with TABLE.open(newline="") as file:
        for row in csv.DictReader(file):
            if not re.fullmatch(r"\([0-9A-F]{4},[0-9A-F]{4}\)", row["tag"]):
                continue
            tag = int(row["tag"][1:5] + row["tag"][6:10], 16)
            actions[tag] = row["basic_profile_2026c"]
            # One rule for all times, whomever they tell of.
            timed = row["vr"] in TIMES or row["keyword"] == "TimezoneOffsetFromUTC"
            full = {"retain_long_full_dates"} if policy.dates == "full" else set()
            if any(row[column] == "K" for column in (full if timed else keeping)):
                kept.add(tag)
    codes = {_BASIC, *(_RETAINED[name][0] for name in policy.retain)}
    codes |= {"modified": {"113107"}, "full": {"113106"}, "removed": set()}[policy.dates]
    codes |= {"113105"} if policy.descriptors else set()
    codes |= {"113111"} if policy.safe_private or policy.declared_safe_private else set()
    words = frozenset(word for text in policy.descriptors for word in words_of(text))
    return Rules(actions, frozenset(kept), words, tuple(sorted(codes)))


def words_of(text: str) -> list[str]:
    """In small letters, without what stands between them."""
    return [word for word in re.split(r"[\W_]+", text.lower()) if word]
