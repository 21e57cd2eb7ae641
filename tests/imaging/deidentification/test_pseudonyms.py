"""Derived names; what the drawn ones have in common with them is tested with the crosswalk."""

import base64
import hashlib
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from imaging.deidentification.crosswalk import Crosswalk
from imaging.deidentification.policy import DeidentificationPolicy
from imaging.deidentification.pseudonyms import Pseudonyms, matching, open_names

KEY = b"k" * 32
NAMES = Pseudonyms(KEY)
UIDS = st.from_regex(r"\A[12]\.[0-9]{1,9}(\.[1-9][0-9]{0,8}){1,5}\Z")


@settings(deadline=None, max_examples=50)
@given(st.lists(UIDS, min_size=2, unique=True))
def test_uids_are_one_to_one_and_need_the_key(uids: list[str]) -> None:
    mapped = [NAMES.uid(u) for u in uids]
    assert len(set(mapped)) == len(uids)
    assert mapped == [Pseudonyms(KEY).uid(f"{u}\0") for u in uids]
    assert all(u.startswith("2.25.") and len(u) <= 64 for u in mapped)
    assert set(mapped).isdisjoint(Pseudonyms(b"x" * 32).uid(u) for u in uids)


@settings(deadline=None, max_examples=50)
@given(st.sets(st.text(min_size=1).map(str.strip).filter(bool), min_size=2))
def test_patients_are_one_to_one_and_move_within_ten_years(patients: set[str]) -> None:
    distinct = {p.strip(" \0") for p in patients}
    assert len({NAMES.patient(p) for p in distinct}) == len(distinct)
    assert all(36525 <= NAMES.shift(p).days < 36525 + 3653 for p in distinct)
    assert all(NAMES.shift(p) == Pseudonyms(KEY).shift(f"{p} ") for p in distinct)


def test_standard_uids_stay_and_forgeries_under_their_root_do_not() -> None:
    assert NAMES.uid("1.2.840.10008.1.2.1") == "1.2.840.10008.1.2.1"
    assert NAMES.uid("1.2.840.10008.1.2.1.0012345").startswith("2.25.")


def test_another_process_derives_the_same() -> None:
    program = (
        "from imaging.deidentification.pseudonyms import Pseudonyms as P;"
        "n = P(b'k' * 32); print(n.uid('1.2.3'), n.patient('MRN'), n.shift('MRN').days)"
    )
    other = subprocess.check_output([sys.executable, "-c", program], text=True).split()
    assert other == [NAMES.uid("1.2.3"), NAMES.patient("MRN"), str(NAMES.shift("MRN").days)]


def bare_hashes(mrn: str) -> set[str]:
    """What anybody can compute: common hashes, as hex, number and Base64."""
    found = set()
    for name in ("md5", "sha1", "sha224", "sha256", "sha512", "blake2b", "blake2s", "sha3_256"):
        raw = hashlib.new(name, mrn.encode()).digest()
        number = str(int.from_bytes(raw, "big"))
        texts = (raw.hex(), number, str(int.from_bytes(raw[:16], "big")))
        found |= {*texts, base64.b64encode(raw).decode(), base64.urlsafe_b64encode(raw).decode()}
    return found


def test_no_bare_hash_of_any_number_finds_its_pseudonym() -> None:
    """A pseudonym that is a part of a bare hash is found by trying all ten million numbers."""
    for number in range(0, 10_000_000, 9_973):
        for mrn in (f"{number:07d}", str(number), f"MRN-{number:07d}"):
            code, uid = NAMES.patient(mrn), NAMES.uid(f"1.2.{number}").removeprefix("2.25.")
            hashes = bare_hashes(mrn) | bare_hashes(f"1.2.{number}")
            assert not any(code in text or uid in text for text in hashes)


def test_a_bare_hash_would_have_been_found() -> None:
    truncated = hashlib.sha256(b"0012345").hexdigest()[:16]
    assert any(truncated in text for text in bare_hashes("0012345"))


def test_only_candidates_and_the_key_lead_back() -> None:
    everybody = [f"{number:07d}" for number in range(500)]
    pseudonym = NAMES.patient("0000123")
    assert matching(everybody, pseudonym, KEY) == ["0000123"]
    assert matching(everybody, pseudonym, b"x" * 32) == []
    assert matching(["1.2.3", "1.2.4"], NAMES.uid("1.2.4"), KEY) == ["1.2.4"]


def test_the_policy_says_whether_names_are_derived_or_drawn(tmp_path: Path) -> None:
    path = tmp_path / "crosswalk.sqlite"
    derived = open_names(DeidentificationPolicy(), KEY, path)
    assert derived.patient("MRN") == NAMES.patient("MRN") and not path.exists()
    drawn = open_names(DeidentificationPolicy(pseudonyms="random"), KEY, path)
    assert isinstance(drawn, Crosswalk) and path.exists()
    assert drawn.patient("MRN") != NAMES.patient("MRN")
    assert derived.key == drawn.key == KEY
    assert derived.shift("MRN") > timedelta(0) < drawn.shift("MRN")
