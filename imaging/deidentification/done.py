"""What was done to each attribute, seen from outside: the source beside what was written of it."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

Done = Literal["removed", "emptied", "replaced", "kept", "added"]
PRIVATE, UNKNOWN = "private attributes", "unknown attributes"


def done(source: "Dataset", written: "Dataset") -> dict[str, list[Done]]:
    """Compare two data sets at every level; nothing of a value is told.

    Args:
        source: As it came in.
        written: As it went out.

    Returns:
        Keyword to what was done wherever it occurs, sorted; `PRIVATE` and `UNKNOWN` stand for all
        attributes of these kinds, whose names may be anything.
    """
    found: dict[str, set[Done]] = {}
    for keyword, what in _compare(source, written):
        found.setdefault(keyword, set()).add(what)
    return {keyword: sorted(found[keyword]) for keyword in sorted(found)}


def _compare(source: "Dataset", written: "Dataset") -> Iterator[tuple[str, Done]]:
    from pydicom.datadict import keyword_for_tag
    from pydicom.tag import Tag

    for tag in sorted(source.keys() | written.keys()):
        name = PRIVATE if Tag(tag).is_private else keyword_for_tag(tag) or UNKNOWN
        if tag not in source:
            yield name, "added"
        elif tag not in written:
            yield name, "removed"
        else:
            try:
                before, after = source[tag], written[tag]
            except Exception:  # pydicom's decoders raise anything
                yield name, "replaced"  # our own writer leaves nothing that does not decode
                continue
            if before.VR == after.VR == "SQ":
                yield name, "kept" if len(after.value) else "emptied"
                # Items keep their order; what has no counterpart was left out with its item.
                for one, other in zip(before.value, after.value, strict=False):
                    yield from _compare(one, other)
            elif not after.is_empty:
                yield name, "kept" if before.value == after.value else "replaced"
            elif not before.is_empty:  # what said nothing before is no news
                yield name, "emptied"
