"""One digest for an ordered list of records, as RFC 6962 section 2.1 makes it.

Unlike the digest of a file it lets anybody who has the list show that one record is in it without
showing the others, and it does not depend on how the list is stored.
"""

import hashlib
from collections.abc import Iterable


def merkle_root(records: Iterable[bytes]) -> str:
    """The root over records in this order: SHA-256, 64 hex digits.

    Holds one hash per power of two, so that records may be streamed.
    """
    whole: list[tuple[int, bytes]] = []  # complete subtrees from left to right: leaves, hash
    for record in records:
        size, tree = 1, hashlib.sha256(b"\0" + record).digest()
        while whole and whole[-1][0] == size:
            size, tree = 2 * size, _joined(whole.pop()[1], tree)
        whole.append((size, tree))
    if not whole:
        return hashlib.sha256().hexdigest()
    root = whole.pop()[1]
    while whole:
        root = _joined(whole.pop()[1], root)
    return root.hex()


def _joined(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\1" + left + right).digest()
