import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imaging.deidentification import spellings
from imaging.deidentification.spellings import mention

DAYS = (
    "20190305", "2019-03-05", "2019.03.05", "2019/3/5", "05.03.2019", "5/3/2019", "03/05/2019",
    "05032019", "03052019", "5 Mar 2019", "5-MAR-2019", "5th March 2019", "March 5, 2019",
    "mar 05 2019", "2019 March 5", "2019Mar05", "20190305101559",
    "5. M\u00e4rz 2019", "5 mars 2019", "5 de marzo de 2019", "5/Mar/2019", "MAR-05-2019",
    "seen 5.3.2019, again", "v1.5.3.2019",
)  # fmt: skip
OTHER_DAYS = (
    "2019", "5.3.19", "2019.03.06", "2019.03.051", "12019.03.05", "May 2019", "2019 mar",
    "5 Mar 2018", "v2.2019.3",
)  # fmt: skip


@pytest.mark.parametrize("text", DAYS)
def test_a_day_is_found_however_it_is_written(text: str) -> None:
    assert mention(["20190305"]).search(text.encode()) == b"20190305"


@pytest.mark.parametrize("text", OTHER_DAYS)
def test_another_day_is_not(text: str) -> None:
    assert mention(["20190305"]).search(text.encode()) is None


@pytest.mark.parametrize(
    ("word", "text", "found"),
    [
        ("quernstein", "DRQUERNSTEIN2", True),
        ("ray", "x-ray ray.", True),
        ("ray", "xray", False),
        ("ray", "J.Ray", True),
        ("ray", "dr.ray.2", True),
        ("1.2.3", "1.2.3.4", False),
        ("1.2.3", "uid 1.2.3 of", True),
        ("7651234", "17651234", False),
        ("7651234", "ID 765-12-34", True),
        ("ab12345", "ID AB-12345", True),
        ("ab12345", "ab_12345", True),
        ("quernstein", "QUERN_STEIN", True),
        ("7561234567897", "756.1234.5678.97", True),
        ("7651234", "765.1234", False),  # a length
        ("7651234", "1.2.765.12.34", False),
        ("7651234", "MRN7651234", False),
        ("mrn-7651234", "(MRN-7651234)", True),
        ("m\u00fchlqvist", "Dr M\u00fchlqvist", True),
        ("\u738b", "x\u738bx", False),
        ("\u738b", "\u5c0f\u738b", True),
    ],
)
def test_short_words_stand_alone(word: str, text: str, found: bool) -> None:
    assert bool(mention([word]).search(text.encode())) is found


def test_in_bytes_only_long_words_are_found() -> None:
    wanted = mention(["ray", "quernstein", "7651234"])
    assert set(wanted.found_in_bytes(b"\x01ray\x02QUERNSTEIN\x037651234\x04")) == {
        b"quernstein", b"7651234",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"DS\x08\x000.703125", False),
        (b"-.703125\\1", False),
        (b"DS\x30\x000.703125\\17.703125000", False),
        (b"1.703125e-05", False),
        (b"703125.5", False),
        (b"TM\x0d\x00703125.000000", False),
        (b"20190305703125", True),  # whoever put a day before it
        (b"7031251", True),
        (b"1.2.840.99.703125.4", True),  # a UID that was kept
        (b"1.2.840.99.4.703125", True),
        (b"1.2.703125", True),
        (b"MRN703125X", True),
        (b"\x00000703125\x00", True),
        (b"No.703125", True),
        (b"703125. ", True),
    ],
)
def test_digits_of_a_decimal_in_bytes_are_chance(data: bytes, found: bool) -> None:
    assert list(mention(["703125"]).found_in_bytes(data)) == [b"703125"] * found


def test_a_day_in_bytes_is_found_with_the_time_behind_it() -> None:
    assert list(mention(["20190305"]).found_in_bytes(b"\x0120190305101559")) == [b"20190305"]
    assert list(mention(["20190305"]).found_in_bytes(b"\x012019-03-05T\xff")) == [b"20190305"]
    assert list(mention(["20190305"]).found_in_bytes(b"\x005 Mar 2019\x00")) == [b"20190305"]


def test_names_in_other_letters_backwards_and_joined() -> None:
    assert {"m\u00fchlqvist", "muhlqvist", "muehlqvist", "tsivqlhum", "tsivqlh\u00fcm"} <= {
        *spellings.of_name("M\u00fchlqvist^\u00c4nne")
    }
    assert {"kim", "anna", "kimanna", "annakim"} == {*spellings.of_name("Kim^Anna")}
    assert {"\u5c71\u7530", "\u592a\u90ce"} <= {*spellings.of_name("=\u5c71\u7530^\u592a\u90ce")}
    assert spellings.of_name("A^B^\u00c9") == ()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("M\u00fchlqvist^Jo", "v1 Mu\u0308hlqvist"),  # decomposed
        ("Mu\u0308hlqvist^Jo", "v1 M\u00fchlqvist"),
        ("Murray^Jo", "\uff2d\uff35\uff32\uff32\uff21\uff39"),  # letters of full width
        ("\u0130pek^Jo", "IPEK"),
        ("\u0130pek^Jo", "\u0130PEK"),
        ("Ipek^Jo", "\u0130pek"),
        ("Li^Na", "LI^NA"),
        ("Li^Na", "Dr. Na Li"),
        ("Li^Na", "LiNa 2"),
        ("Yamada^Jo==\u3084\u307e\u3060", "\u30e4\u30de\u30c0"),  # in katakana
        ("Yamada^Jo==\u3084\u307e\u3060", "\uff94\uff8f\uff80\uff9e"),  # of half width
        ("\uff94\uff8f\uff80\uff9e^\uff80\uff9b\uff73", "\u3084\u307e\u3060"),
        ("\u0418\u0432\u0430\u043d^\u041f\u0451\u0442\u0440", "\u041f\u0415\u0422\u0420"),
    ],
)
def test_a_name_is_found_in_letters_that_read_alike(name: str, text: str) -> None:
    assert mention(spellings.of_name(name)).search(text.encode())


def test_a_name_in_kana_is_found_in_bytes_as_it_stands() -> None:
    wanted = mention(spellings.of_name("\u30e4\u30de\u30c0^Jo"))
    assert any(wanted.found_in_bytes(b"\x01" + "\u30e4\u30de\u30c0".encode()))


def test_numbers_without_letters_and_zeros() -> None:
    assert spellings.of_number("MRN-0123456") == (
        "mrn-0123456", "mrn0123456", "0123456", "123456",
    )  # fmt: skip
    assert spellings.of_number("765-12-34") == ("765-12-34", "7651234")
    assert spellings.of_number("A1") == spellings.of_number("17") == ()


@given(st.binary(max_size=20), st.binary(max_size=20))
def test_base64_and_hexadecimal_are_found_wherever_they_start(before: bytes, after: bytes) -> None:
    forms = spellings.encoded("Quernstein")
    whole = before + b"Quernstein" + after
    assert any(form in base64.b64encode(whole) for form in forms)
    assert any(form in whole.hex().encode() for form in forms)


@pytest.mark.parametrize(
    ("codec", "name"),
    [
        ("gb18030", "\u738b^\u5c0f\u4e1c"),
        ("shift_jis", "\u5c71\u7530^\u592a\u90ce"),
        ("utf-8", "M\u00fcller^J\u00f6"),
        ("cp1251", "\u0418\u0432\u0430\u043d^\u041b\u0438"),
    ],
)
def test_a_name_in_an_undeclared_character_set_is_found_as_it_was_read(
    codec: str, name: str
) -> None:
    as_read = name.encode(codec).decode("latin-1")
    wanted = mention(spellings.of_name(as_read))
    for part in as_read.split("^"):
        assert wanted.search(f"v2 {part} x".encode())
