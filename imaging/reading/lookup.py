"""Lookup tables of DICOM: palette, modality and VOI tables are written, and looked up in, alike."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_COLOURS = ("Red", "Green", "Blue")


@dataclass(frozen=True, eq=False)
class Table:
    """A lookup table: values from `first` on, whatever is lower or higher as its neighbour."""

    first: int
    bits: int
    entries: NDArray[Any]

    def of(self, values: NDArray[Any]) -> NDArray[Any]:
        """What the table says for each of the values, in their shape."""
        if values.dtype.kind == "f":
            values = np.rint(values)
        narrow = values.dtype.kind in "iu" and values.dtype.itemsize <= 2
        places = values.astype(np.int32 if narrow else np.int64) - self.first
        found: NDArray[Any] = self.entries[np.clip(places, 0, len(self.entries) - 1, out=places)]
        return found


def table(item: "Dataset", signed: bool, little: bool) -> Table:
    """The table of an item of a Modality or VOI LUT Sequence (PS3.3 C.11.1.1).

    Args:
        item: With LUT Descriptor and LUT Data.
        signed: The values looked up may be negative, and so may the first of them be.
        little: Byte order of the data set.

    Raises:
        AttributeError: It lacks an attribute.
        ValueError: The descriptor and the data do not fit.
    """
    return _table(item.LUTDescriptor, item["LUTData"], signed, little)


def palette(dataset: "Dataset") -> Sequence[Table]:
    """The three tables of a palette (PS3.3 C.7.6.3.1.5), of 8 or of 16 bits alike.

    Raises:
        AttributeError: It lacks an attribute.
        ValueError: Descriptors and data do not fit, or segments expand to more than announced.
    """
    signed, little = bool(dataset.get("PixelRepresentation") or 0), is_little(dataset)
    tables = []
    for colour in _COLOURS:
        descriptor = dataset[f"{colour}PaletteColorLookupTableDescriptor"].value
        whole, parted = (
            f"{prefix}{colour}PaletteColorLookupTableData" for prefix in ("", "Segmented")
        )
        if whole in dataset:
            tables.append(_table(descriptor, dataset[whole], signed, little))
        else:
            tables.append(_segmented(descriptor, dataset[parted].value, signed, little))
    # Some write entries of 8 bits into words, and some say 16 of what are bytes.
    narrow = all(table.bits == 8 or table.entries.itemsize == 1 for table in tables)
    narrow = narrow and max(int(table.entries.max()) for table in tables) < 256
    depth = np.uint8 if narrow else np.uint16
    return [Table(table.first, table.bits, table.entries.astype(depth)) for table in tables]


def is_little(dataset: "Dataset") -> bool:
    """The byte order in which words inside of byte strings lie."""
    return bool(dataset.original_encoding[1] is not False)


def _table(descriptor: Any, data: Any, signed: bool, little: bool) -> Table:
    count, first, bits = _descriptor(descriptor, signed)
    if isinstance(data.value, bytes):
        entries = _words(data.value, count, data.VR == "OW", little)
    else:
        values = np.atleast_1d(np.asarray(data.value)).astype(np.int64)
        entries = (values & 0xFFFF).astype(np.uint16)[:count]
    if len(entries) < count:
        raise ValueError("fewer entries than announced")
    return Table(first, bits, entries)


def _descriptor(descriptor: Any, signed: bool) -> tuple[int, int, int]:
    """Entries (0 stands for 65536), first value, bits. Each may come as if it were signed."""
    count, first, bits = (int(number) & 0xFFFF for number in descriptor)
    if not 8 <= bits <= 16:
        raise ValueError("bits of an entry")
    return count or 2**16, first - 2**16 if signed and first >= 2**15 else first, bits


def _words(data: bytes, count: int, as_words: bool, little: bool) -> NDArray[Any]:
    """Entries of one byte, if there are too few for two: packed into words if so announced."""
    order = "<" if little else ">"
    if len(data) >= 2 * count:
        return np.frombuffer(data, f"{order}u2", count)
    if as_words and not little:
        data = np.frombuffer(data, ">u2").astype("<u2").tobytes()
    return np.frombuffer(data, np.uint8, count)


def _segmented(descriptor: Any, data: bytes, signed: bool, little: bool) -> Table:
    """A table in segments (PS3.3 C.7.9.2): values, straight lines, and repeats of earlier ones."""
    count, first, bits = _descriptor(descriptor, signed)
    width = 1 if bits == 8 else 2
    words = _words(data, len(data) // width, True, little).astype(np.int64)
    entries: list[int] = []

    def expand(place: int, segments: int | None) -> None:
        while place + 1 < len(words) and segments != 0 and len(entries) < count:
            kind, length = int(words[place]), int(words[place + 1])
            place += 2
            if kind == 0:
                entries.extend(words[place : place + length].tolist())
                place += length
            elif kind == 1 and entries:
                line = np.linspace(entries[-1], words[place], length + 1)[1:]
                entries.extend(np.rint(line).astype(int).tolist())
                place += 1
            elif kind == 2 and segments is None:  # a repeat does not repeat
                digits = words[place : place + 4 // width].tolist()
                offset = sum(digit << (8 * width * i) for i, digit in enumerate(digits))
                expand(offset // width, length)
                place += len(digits)
            else:
                raise ValueError("a segment of no known kind")
            if segments is not None:
                segments -= 1

    expand(0, None)
    if len(entries) != count:
        raise ValueError("segments do not expand to the entries announced")
    return Table(first, bits, np.asarray(entries, np.uint8 if width == 1 else np.uint16))
