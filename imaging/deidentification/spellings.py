"""How an identity may be written: a name in other letters or backwards, a date in other forms."""

import base64
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

SHORTEST = 3  # letters of a name
INSIDE = 5  # letters of a name that is also looked for inside longer words
NUMBER = 6  # characters of a number; "17" is also a measurement somewhere

_WORD = re.compile(r"[^\W\d_]+")
_BETWEEN = b"-/_. "
# 765 12 34, AB-12345, 756.1234.5678.97; with a single point it is a decimal.
_GROUPED = re.compile(
    rb"(?<![a-z0-9.])(?:[a-z0-9]+(?:[-/_][a-z0-9]+)+|\d+(?:(?: \d+)+|(?:\.\d+){2,}))(?![a-z0-9])"
)
_ALONE = rb"(?<![A-Za-z0-9])%b(?![A-Za-z0-9])"  # J.Kim names a Kim
_NUMBER_ALONE = rb"(?<![A-Za-z0-9.])%b(?![A-Za-z0-9]|\.[0-9])"  # 1.17.3 is nobody's 17
_DIGIT = re.compile(rb"\d")
_DECIMAL = re.compile(rb"(?<![a-z0-9.])[0-9]*\.[0-9]+(?![0-9.])")  # no part of a UID
_TWO_LETTERS = str.maketrans(
    {"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss", "å": "aa", "æ": "ae", "ø": "oe", "œ": "oe"}
)
_ONE_LETTER = str.maketrans(
    {"ß": "ss", "æ": "ae", "ø": "o", "œ": "oe", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "ı": "i"}
)
_HIRAGANA = {katakana: katakana - 0x60 for katakana in range(0x30A1, 0x30F7)}
# How months begin, in English, German, French, Spanish and Italian.
MONTHS = {
    beginning: f"{number:02d}"
    for number, beginnings in enumerate(
        (
            "jan jän ene gen", "feb fév fev", "mar mär", "apr avr abr", "may mai mag",
            "jun juin giu", "jul juil lug", "aug aoû aou ago", "sep set", "oct okt ott", "nov",
            "dec dez déc dic",
        ),
        1,
    )
    for beginning in beginnings.split()
}  # fmt: skip
# Looking ahead only, so that 1.5.3.2019 is read as 1.5.3 and as 5.3.2019.
_NUMERIC_DAY = re.compile(rb"(?<!\d)(?=(\d{1,4})([-./ _]|)(\d\d?)\2(\d{1,4})(?!\d))")
_WORDED_DAY = re.compile(
    rb"(?<!\d)(\d{0,4})(?:st|nd|rd|th)?[-./, ]{0,2}(?:de )?("
    + "|".join(MONTHS).encode()
    + rb")[a-z]{0,6}[-./, ]{0,2}(?:de )?(\d{0,2})(?:st|nd|rd|th)?[-./, ]{0,2}(\d{4})?(?!\d)"
)


@dataclass(frozen=True)
class Mention:
    """Finds identifiers in text or bytes.

    One is made for every file, so nothing is compiled: each identifier is looked for as it stands,
    and only one that is there is looked at more closely.

    Attributes:
        inside: Lower-case UTF-8, found inside longer words, too.
        alone: Found only where no letter or digit is next to it.
        days: As YYYYMMDD, found in any usual way to write a day with all of its year.
        spelled: From `encoded`, found in bytes as they are.
    """

    inside: tuple[bytes, ...]
    alone: tuple[bytes, ...]
    days: frozenset[bytes]
    spelled: frozenset[bytes] = frozenset()

    def search(self, text: bytes) -> bytes | None:
        """An identifier that a text, UTF-8, mentions, or None."""
        return next(self.found(text), None)

    def found(self, text: bytes) -> Iterator[bytes]:
        """The identifiers that a text, UTF-8, mentions."""
        told = str(text, "utf-8", "replace").lower()  # of bytes, only ASCII would be
        text = (told if told.isascii() else f"{told}\n{_alike(told)}").encode()
        yield from (word for word in self.inside if word in text)
        for word in self.alone:
            alone = _NUMBER_ALONE if _DIGIT.search(word) else _ALONE
            if word in text and re.search(alone % re.escape(word), text):
                yield word
        joined = text.translate(None, _BETWEEN)
        if divided := {w for w in (*self.inside, *self.alone) if w in joined and w.isalnum()}:
            yield from divided & {w.translate(None, _BETWEEN) for w in _GROUPED.findall(text)}
        if any(day[:4] in text for day in self.days):
            yield from self.days.intersection(_days(text))

    def found_in_bytes(self, data: bytes) -> Iterator[bytes]:
        """The identifiers in what may be anything: such as are too long to be there by chance.

        Digits of a decimal are chance: slices lie at 17.703125 mm by the thousand.
        """
        yield from (word for word in self.spelled if word in data)
        data = data.lower()
        if any(day[:4] in data for day in self.days):
            yield from self.days.intersection(_days(data))
        letters = data.replace(b"\0", b"")  # of two bytes, too
        for word in (*self.inside, *self.alone):
            if len(word) < INSIDE or word not in letters:
                continue
            number = word in self.alone and word.isdigit()
            if not number or word in _DECIMAL.sub(b" ", data).replace(b"\0", b""):
                yield word


def mention(identifiers: Iterable[str], spelled: Iterable[bytes] = ()) -> Mention:
    """Of identifiers, and of bytes that a program may have made of them.

    Names of five letters or more match inside longer words, too; shorter ones only as words, or a
    patient called Ray would be found in every X-ray.
    """
    inside: list[bytes] = []
    alone: list[bytes] = []
    days: list[bytes] = []
    for word in identifiers:
        text = word.lower().encode()
        if word.isdigit() and len(word) == 8:
            inside.append(text)
            days.append(text)
        else:
            (inside if word.isalpha() and len(word) >= INSIDE else alone).append(text)
    return Mention(tuple(inside), tuple(alone), frozenset(days), frozenset(spelled))


def _days(text: bytes) -> Iterator[bytes]:
    """What may be days in a text, each as YYYYMMDD; where two readings are possible, both."""
    for match in _NUMERIC_DAY.finditer(text):
        first, separator, middle, last = match.groups()
        if not separator:
            digits = first + middle + last
            if len(digits) != 8:
                continue
            first, middle, last = digits[:2], digits[2:4], digits[4:]  # year first is found anyway
        if len(first) == 4:
            yield first + middle.zfill(2) + last.zfill(2)
        yield last + middle.zfill(2) + first.zfill(2)
        yield last + first.zfill(2) + middle.zfill(2)
    for match in _WORDED_DAY.finditer(text):
        before, beginning, after, year = match.groups()
        month = MONTHS[beginning.decode()].encode()
        if year:
            yield year + month + (before or after).zfill(2)
        elif len(before) == 4:
            yield before + month + after.zfill(2)


@lru_cache(maxsize=1024)  # of one process: a patient's files follow each other
def of_name(text: str) -> tuple[str, ...]:
    """Each part of a person's name, in other letters and backwards; short parts joined, too.

    What was read in a wrong character set has signs amid its letters, and is looked for whole.
    Two parts of two letters each are looked for side by side only: Li^Na as LiNa, Na Li, Li, Na.
    """
    forms = (unicodedata.normalize("NFC", text).lower(), _alike(text))  # in bytes; in texts
    return tuple(dict.fromkeys(word for form in forms for word in _of_parts(form)))


def _of_parts(text: str) -> list[str]:
    parts = _WORD.findall(text)
    words = [w for part in parts if _telling(part) for w in _letters(part)]
    whole = map(str.strip, re.split(r"[\^=]", text))
    words += [name for name in whole if len(name) > 1 and not name.isascii()]
    words += [word[::-1] for word in words if len(word) >= INSIDE]
    for first, second in pairwise(parts):
        if min(len(first), len(second)) < INSIDE <= len(first + second):
            words += [first + second, second + first]
        elif not (_telling(first) or _telling(second)) and len(first + second) > SHORTEST:
            pairs = ((first, second), (second, first))
            words += [between.join(pair) for pair in pairs for between in ("", " ", "^", ", ")]
    return words


def _alike(text: str) -> str:
    """Lower case, composed, of usual width, in one kana: what is read alike is spelled alike."""
    text = text.lower()
    if text.isascii():
        return text
    text = unicodedata.normalize("NFKC", text).translate(_HIRAGANA)
    return text.replace("i\u0307", "i")  # of the Turkish capital


def _telling(word: str) -> bool:
    """Long enough to be no coincidence; of Chinese, Japanese and Korean one sign is a name."""
    return len(word) >= SHORTEST or any(sign >= "\u1100" for sign in word)


def _letters(word: str) -> Iterator[str]:
    """Müller, Muller, Mueller."""
    yield word
    if word.isascii():
        return
    for letters in (_TWO_LETTERS, _ONE_LETTER):
        plain = unicodedata.normalize("NFKD", word.translate(letters))
        plain = "".join(c for c in plain if not unicodedata.combining(c))
        plain = unicodedata.normalize("NFC", plain)  # Hangul
        if len(plain) >= SHORTEST:
            yield plain


@lru_cache(maxsize=1024)
def of_number(text: str) -> tuple[str, ...]:
    """An identifier as it is and without what divides it, its digits, these without leading zeros.

    "MRN-0123456" is 123456 in a field that takes numbers only.
    """
    if len(text) < NUMBER and sum(map(str.isalpha, text)) < 3:
        return ()  # 17 or A1 is also a measurement or a code somewhere
    digits = re.sub(r"\D", "", text)
    whole = re.sub(r"[\W_]", "", text.lower())
    words = [text.lower(), whole] if len(whole) >= NUMBER else [text.lower()]
    if len(digits.lstrip("0")) >= NUMBER:
        words += [digits, digits.lstrip("0")]
    return tuple(dict.fromkeys(words))


@lru_cache(maxsize=1024)
def encoded(text: str) -> frozenset[bytes]:
    """A whole value as a program may have written it: wide characters, base64, hexadecimal."""
    raw = text.encode()
    if len(raw) < NUMBER:
        return frozenset()
    # Wherever it starts in a longer text, these letters of its base64 are the same.
    in_base64 = {
        base64.b64encode(before + raw).rstrip(b"=")[told:-1]
        for before, told in ((b"", 0), (b"a", 2), (b"ab", 3))
    }
    wide = {text.encode("utf-16-le"), text.encode("utf-16-be")}
    return frozenset(wide | in_base64 | {raw.hex().encode(), raw.hex().upper().encode()})
