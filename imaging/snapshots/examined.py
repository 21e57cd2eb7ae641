"""All files of a folder examined: in worker processes, as they come, and each content only once."""

import logging
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from imaging.deidentification.pseudonyms import Names
from imaging.incoming.folder import find_files
from imaging.snapshots.examine import Examination
from imaging.snapshots.ingested import Facts, Ingested, look
from imaging.worker import each_isolated
from lineage import code
from lineage.digest import digest, keyed_digest
from lineage.errors import StepFailed
from lineage.progress import Report

KEEP_EVERY_S = 0.5  # what a kill may cost


@dataclass(frozen=True)
class Examined:
    """The files, sorted, and for each its row in the store."""

    files: Sequence[str]
    rows: Sequence[int]
    store: Ingested

    def __iter__(self) -> Iterator[tuple[str, Facts]]:
        """Each file and its facts, from the disk: nobody holds them all at once."""
        return ((file, self.facts(i)) for i, file in enumerate(self.files))

    def facts(self, place: int) -> Facts:
        """Those of the file at this place."""
        return self.store.facts(self.rows[place])


def recipe(how: Examination, names: Names) -> str:
    """Names everything that facts depend on but the file: how it is cleaned, by what, whose key."""
    settings = how.as_json()
    del settings["timeout_s"]  # a file that took too long is tried again
    settings["crosswalk"] = names.name
    fingerprint = keyed_digest(names.key, "fingerprint", "ingested")
    sources = code.code_digest("imaging.snapshots.examine")
    return digest("recipe", settings, fingerprint, sources, code.environment())


def examine_all(
    how: Examination, scans: Path, store: Ingested, key: bytes, report: Report | None = None
) -> Examined:
    """Examine what is not known yet.

    Raises:
        BadInput: The folder is missing, or not all of it can be seen.
        StepFailed: The check of what was written found a leak, files cannot be written, or no
            worker could start.
    """
    setup = {"scans": str(scans.absolute()), "key": key.hex(), "how": how.as_json()}
    return examine_files(
        "imaging.snapshots.examine:examiner",
        setup,
        scans,
        find_files(scans),
        store,
        timeout_s=how.timeout_s,
        memory_gib=how.memory_gib,
        report=report,
    )


def examine_files(
    task: str,
    setup: Facts,
    source: Path,
    files: Sequence[str],
    store: Ingested,
    *,
    timeout_s: float,
    memory_gib: float,
    report: Report | None = None,
) -> Examined:
    """Examine what is not known yet of these files.

    Args:
        task: Of `imaging.worker`; makes facts of a file, with its `look` and `file_sha256`.
        setup: Sent to it, with the `folder` of the store.
        source: The folder below which the files lie.
        files: Relative to it.
        store: Where facts are kept.
        timeout_s, memory_gib: Bounds for one file.
        report: Told of the progress.

    Raises:
        StepFailed: As `examine_all`.
    """
    rows = [store.recall(_look(source / file)) for file in files]
    new = [i for i, row in enumerate(rows) if row is None]
    done = len(files) - len(new)
    known = f"{done} known" if done else ""
    if report and done:
        report(done, len(files), known)  # the pace is that of the others
    troubles, fresh, kept_at = _Troubles(), list[tuple[int, Facts]](), time.monotonic()
    answers = each_isolated(
        task,
        setup | {"folder": str(store.folder.absolute())},
        [files[i] for i in new],
        timeout_s=timeout_s,
        memory_gib=memory_gib,
    )
    try:
        for item, facts in answers:
            if not troubles.take(facts):
                fresh.append((new[item], facts))
            if time.monotonic() - kept_at > KEEP_EVERY_S:
                _keep_all(store, fresh, rows)
                kept_at = time.monotonic()
            done += 1
            if report:
                report(done, len(files), known)
    finally:
        _keep_all(store, fresh, rows)
    troubles.tell()
    return Examined(files, [row for row in rows if row is not None], store)


class _Troubles:
    """What is wrong with more than the file: counted, told at the end, never by value."""

    def __init__(self) -> None:
        self.leaks: Counter[tuple[str, str]] = Counter()
        self.unwritable: list[str] = []
        self.places: set[str] = set()

    def take(self, facts: Facts) -> bool:
        """Note it; whether the step will fail for it."""
        if "place" in facts:
            self.places.add(facts["place"])
        if "unwritable" in facts:
            self.unwritable.append(facts["unwritable"])
        self.leaks.update({(leak["check"], leak["attribute"]) for leak in facts.get("leaks", ())})
        return "unwritable" in facts or "leaks" in facts

    def tell(self) -> None:
        """Raise for leaks, by check and attribute and number of files; and for a full disk."""
        if self.leaks:
            told = "; ".join(f"{a} ({c}) in {n} files" for (c, a), n in sorted(self.leaks.items()))
            raise StepFailed(
                "de-identification: the check of the written files found a leak, so none of "
                f"them is used: {told}"
            )
        if self.unwritable:
            raise StepFailed(
                f"{len(self.unwritable)} cleaned files could not be written "
                f"({self.unwritable[0]}): make room in the workspace, or let it be written to, and "
                "run again"
            )
        for place in sorted(self.places):
            logging.getLogger(__name__).warning("a file was set aside after %s", place)


def _keep_all(store: Ingested, fresh: list[tuple[int, Facts]], rows: list[int | None]) -> None:
    """Store what was found out in one go: meanwhile no other process can write."""
    for place, facts in fresh:
        rows[place] = _kept(store, facts)
    store.commit()
    fresh.clear()


def _kept(store: Ingested, facts: Facts) -> int:
    """Store facts. Those of a worker that broke off have no look: the file is tried again."""
    look = facts.pop("look", None)
    # What was not even read is the same for all of its kind.
    content = facts.get("file_sha256") or f"reason {facts['reason']}"
    known = store.find(content) if facts.get("known") else None
    row = store.keep(content, facts) if known is None else known
    if look:
        store.remember(look, row)
    return row


def _look(path: Path) -> str | None:
    with suppress(OSError):
        return look(path.stat())
    return None
