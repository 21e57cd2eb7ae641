"""Files of the workspace that outlive a job, kept in S3 where no disk does.

A job on SageMaker starts with an empty disk. What a step adds to the workspace (an audit row, a
split assignment, a request) is fetched before it runs and written back after, also if it failed.
Two rules keep anything from being lost. One step at a time holds a file: a lease, written only
if there is none (`If-None-Match`), is waited for. And a file is written back only over the very
bytes that were fetched (`If-Match`), so that even a holder whose lease ran out overwrites nothing.
"""

import json
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatch
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

from lineage.digest import file_digest
from lineage.errors import BadInput, StepFailed
from lineage.files import read_json, write_json

VARIABLE = "LIGHTBOX_STATE"  # s3://BUCKET/PREFIX
NOTE = ".shared-state.json"
_POLL_S = 2.0

log = logging.getLogger(__name__)


@contextmanager
def shared_state(
    patterns: Sequence[str], home: Path, lease_minutes: int
) -> Iterator[Callable[[], None]]:
    """Have the files that match `patterns` in the workspace while a step runs.

    Nothing happens where `LIGHTBOX_STATE` names no place. What is given writes back what there is
    so far, for what must be kept before the step goes on.

    Args:
        patterns: Glob patterns relative to `home`.
        home: The workspace.
        lease_minutes: After that long a lease is taken for one whose holder was killed; at least
            what the step may take.

    Raises:
        BadInput: `LIGHTBOX_STATE` is no S3 URI, or the workspace holds such a file of its own.
        StepFailed: Somebody else wrote a file meanwhile, or S3 refuses.
    """
    place = os.environ.get(VARIABLE)
    if not place or not patterns:
        yield lambda: None
        return
    store = _Store(*_parsed(place), home, patterns)
    with ExitStack() as held:
        for pattern in sorted(patterns):  # in one order, so that two steps never wait in a ring
            held.enter_context(store.leased(pattern, lease_minutes))
        store.fetch()
        try:
            yield store.write_back
        finally:
            store.write_back()


def fetch_state(patterns: Sequence[str], home: Path) -> None:
    """Bring the files as they are now, to read them; see `shared_state`."""
    if place := os.environ.get(VARIABLE):
        _Store(*_parsed(place), home, patterns).fetch()


class _Store:
    """The files of some patterns, in a workspace and in S3."""

    def __init__(self, bucket: str, prefix: str, home: Path, patterns: Sequence[str]) -> None:
        import boto3

        self._s3, self._bucket, self._prefix = boto3.client("s3"), bucket, prefix
        self._home, self._patterns = home, patterns
        self._known: dict[Path, tuple[str, str]] = {}  # ETag, and digest of the bytes

    def fetch(self) -> None:
        """Bring all of them; what lies here already must have come from there."""
        noted = read_json(self._home / NOTE) or {}
        for path in self._here():
            # Another workspace's audit log must neither be overwritten here nor sent there.
            if noted.get(str(path.relative_to(self._home))) != file_digest(path):
                raise BadInput(
                    f"the workspace holds a file {path.name} of its own, and {VARIABLE} names "
                    "another: let LIGHTBOX_HOME name an empty folder"
                )
        with _explained():
            for key in [key for pattern in self._patterns for key in self._keys(pattern)]:
                path = (self._home / key.removeprefix(f"{self._prefix}/")).resolve()
                if path.is_relative_to(self._home.resolve()):
                    self._known[path] = self._get(key, path)
        self._note()

    def write_back(self) -> None:
        """Write what changed, all of it, and then say which file somebody else wrote meanwhile."""
        lost = []
        with _explained():
            for path in self._here():
                _settle(path)
                etag, content = self._known.get(path, ("", ""))
                if file_digest(path) == content:
                    continue
                if told := self._put(path, etag):
                    self._known[path] = told
                else:
                    lost.append(path.name)
        self._note()
        if lost:
            raise StepFailed(
                f"{', '.join(lost)} was written by another run while this step ran, so what this "
                "step added to it is not kept; run the step again"
            )

    @contextmanager
    def leased(self, pattern: str, minutes: int) -> Iterator[None]:
        """Hold the only lease on what matches a pattern; whoever comes next waits."""
        key, holder = f"{self._prefix}/leases/{pattern}", uuid4().hex
        with _explained():
            self._take(key, holder, minutes)
        try:
            yield
        finally:
            with _explained():
                found = self._read(key)
                if found and found[1]["holder"] == holder:
                    self._s3.delete_object(Bucket=self._bucket, Key=key)

    def _take(self, key: str, holder: str, minutes: int) -> None:
        def taken(**condition: str) -> bool:
            until = datetime.now(UTC) + timedelta(minutes=minutes)
            lease = json.dumps({"holder": holder, "until": until.isoformat()}).encode()
            return _taken(
                lambda: self._s3.put_object(Bucket=self._bucket, Key=key, Body=lease, **condition)
            )

        told = False
        while not taken(IfNoneMatch="*"):
            if (found := self._read(key)) is None:
                continue  # let go of just now
            etag, standing = found
            if standing["holder"] == holder:
                return  # our own; only the answer was lost
            until = datetime.fromisoformat(standing["until"])
            if until < datetime.now(UTC) and taken(IfMatch=etag):
                return  # its holder was killed, and of those who wait one took it
            if not told:
                log.warning("another run is at work on %s; waiting", key.rpartition("/")[2])
                told = True
            time.sleep(_POLL_S)

    def _here(self) -> list[Path]:
        """The files that match, and no journal that a database keeps beside one."""
        found = {path for pattern in self._patterns for path in self._home.resolve().glob(pattern)}
        return sorted(path for path in found if path.is_file())

    def _keys(self, pattern: str) -> list[str]:
        wanted = f"{self._prefix}/{pattern}"
        pages = self._s3.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=wanted.partition("*")[0]
        )
        keys = [item["Key"] for page in pages for item in page.get("Contents", [])]
        return [key for key in keys if fnmatch(key, wanted)]

    def _get(self, key: str, path: Path) -> tuple[str, str]:
        answer = self._s3.get_object(Bucket=self._bucket, Key=key)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)  # some of it is nobody else's
        with path.open("wb") as file:
            for part in answer["Body"].iter_chunks(2**20):
                file.write(part)
        return answer["ETag"], file_digest(path)

    def _put(self, path: Path, etag: str) -> tuple[str, str] | None:
        """The file's new ETag and digest; None if other bytes lie there now."""
        key = f"{self._prefix}/{path.relative_to(self._home.resolve())}"
        condition = {"IfMatch": etag} if etag else {"IfNoneMatch": "*"}
        with path.open("rb") as file:
            # Whether it was taken is asked of the object itself: an answer may be lost on its way.
            _taken(
                lambda: self._s3.put_object(Bucket=self._bucket, Key=key, Body=file, **condition)
            )
        with TemporaryDirectory() as folder:
            try:
                there = self._get(key, Path(folder, "there"))
            except self._s3.exceptions.NoSuchKey:
                return None
        return there if there[1] == file_digest(path) else None

    def _read(self, key: str) -> tuple[str, dict[str, str]] | None:
        try:
            answer = self._s3.get_object(Bucket=self._bucket, Key=key)
        except self._s3.exceptions.NoSuchKey:
            return None
        return answer["ETag"], json.loads(answer["Body"].read())

    def _note(self) -> None:
        """Write down what came from there, and what went there."""
        known = {str(p.relative_to(self._home.resolve())): d for p, (_, d) in self._known.items()}
        write_json(self._home / NOTE, (read_json(self._home / NOTE) or {}) | known)


def _settle(path: Path) -> None:
    """Bring what a killed process left in a database's write-ahead log into the database."""
    if path.with_name(f"{path.name}-wal").exists():
        with closing(sqlite3.connect(path)) as database:
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _parsed(place: str) -> tuple[str, str]:
    scheme, _, rest = place.partition("://")
    bucket, _, prefix = rest.partition("/")
    if scheme != "s3" or not bucket or not prefix.strip("/"):
        raise BadInput(f"{VARIABLE}: {place} is not s3://BUCKET/PREFIX")
    return bucket, prefix.strip("/")


@contextmanager
def _explained() -> Iterator[None]:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (BotoCoreError, ClientError) as error:
        code = error.response["Error"]["Code"] if isinstance(error, ClientError) else ""
        what = code or type(error).__name__
        raise StepFailed(f"the workspace in {VARIABLE} cannot be reached ({what})") from error


def _taken(write: Callable[[], object]) -> bool:
    """Whether a conditional write was taken.

    S3 answers 412 if the condition does not hold, 409 where two came at once, and 404 where the
    object that should have matched is gone.
    """
    from botocore.exceptions import ClientError

    try:
        write()
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] in (404, 409, 412):
            return False
        raise
    return True
