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
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatch
from pathlib import Path
from typing import Any
from uuid import uuid4

from lineage.digest import file_digest
from lineage.errors import BadInput, StepFailed
from lineage.files import read_json, write_json

VARIABLE = "LIGHTBOX_STATE"  # s3://BUCKET/PREFIX
NOTE = ".shared-state.json"
_POLL_S = 2.0

log = logging.getLogger(__name__)


@contextmanager
def shared_state(patterns: Sequence[str], home: Path, lease_minutes: int) -> Iterator[None]:
    """Have the files that match `patterns` in the workspace while a step runs.

    Nothing happens where `LIGHTBOX_STATE` names no place.

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
        yield
        return
    bucket, prefix = _parsed(place)
    s3 = _client()
    with ExitStack() as held, _explained():
        for pattern in sorted(patterns):  # in one order, so that two steps never wait in a ring
            held.enter_context(_leased(s3, bucket, f"{prefix}/leases/{pattern}", lease_minutes))
        fetched = _fetch_all(s3, bucket, prefix, patterns, home)
        try:
            yield
        finally:
            for pattern in patterns:
                for path in sorted(home.glob(pattern)):
                    key = f"{prefix}/{path.relative_to(home)}"
                    _write_back(s3, bucket, key, path, *fetched.get(key, (None, None)))
            _note(home, patterns)


def fetch_state(patterns: Sequence[str], home: Path) -> None:
    """Bring the files as they are now, to read them; see `shared_state`."""
    if place := os.environ.get(VARIABLE):
        with _explained():
            _fetch_all(_client(), *_parsed(place), patterns, home)
        _note(home, patterns)


def _fetch_all(
    s3: Any, bucket: str, prefix: str, patterns: Sequence[str], home: Path
) -> dict[str, tuple[str, str]]:
    """Each key's ETag, and the digest of its bytes."""
    noted = read_json(home / NOTE) or {}
    for pattern in patterns:
        for path in home.glob(pattern):
            # Another workspace's audit log must neither be overwritten here nor sent there.
            if noted.get(str(path.relative_to(home))) != file_digest(path):
                raise BadInput(
                    f"the workspace holds a file {path.name} of its own, and {VARIABLE} names "
                    "another: let LIGHTBOX_HOME name an empty folder"
                )
    return {
        key: _fetch(s3, bucket, key, home / key.removeprefix(f"{prefix}/"))
        for pattern in patterns
        for key in _keys(s3, bucket, f"{prefix}/{pattern}")
    }


def _note(home: Path, patterns: Sequence[str]) -> None:
    """Write down what came from there, and what went there."""
    paths = [path for pattern in patterns for path in home.glob(pattern)]
    known = {str(path.relative_to(home)): file_digest(path) for path in paths}
    write_json(home / NOTE, (read_json(home / NOTE) or {}) | known)


def _parsed(place: str) -> tuple[str, str]:
    scheme, _, rest = place.partition("://")
    bucket, _, prefix = rest.partition("/")
    if scheme != "s3" or not bucket or not prefix.strip("/"):
        raise BadInput(f"{VARIABLE}: {place} is not s3://BUCKET/PREFIX")
    return bucket, prefix.strip("/")


def _client() -> Any:
    import boto3

    return boto3.client("s3")


@contextmanager
def _explained() -> Iterator[None]:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (BotoCoreError, ClientError) as error:
        code = error.response["Error"]["Code"] if isinstance(error, ClientError) else ""
        what = code or type(error).__name__
        raise StepFailed(f"the workspace in {VARIABLE} cannot be reached ({what})") from error


def _keys(s3: Any, bucket: str, pattern: str) -> list[str]:
    start = pattern.partition("*")[0]
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=start)
    keys = [item["Key"] for page in pages for item in page.get("Contents", [])]
    return [key for key in keys if fnmatch(key, pattern)]


def _fetch(s3: Any, bucket: str, key: str, path: Path) -> tuple[str, str]:
    """The object's ETag, and the digest of its bytes."""
    answer = s3.get_object(Bucket=bucket, Key=key)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for part in answer["Body"].iter_chunks(2**20):
            file.write(part)
    return answer["ETag"], file_digest(path)


def _write_back(
    s3: Any, bucket: str, key: str, path: Path, etag: str | None, content: str | None
) -> None:
    if file_digest(path) == content:
        return
    condition = {"IfMatch": etag} if etag else {"IfNoneMatch": "*"}
    with path.open("rb") as file:
        if not _put(lambda: s3.put_object(Bucket=bucket, Key=key, Body=file, **condition)):
            raise StepFailed(
                f"{path.name} was written by another run while this step ran, so what this step "
                "added to it is not kept; run the step again"
            )


@contextmanager
def _leased(s3: Any, bucket: str, key: str, minutes: int) -> Iterator[None]:
    holder = uuid4().hex

    def lease() -> bytes:
        until = datetime.now(UTC) + timedelta(minutes=minutes)
        return json.dumps({"holder": holder, "until": until.isoformat()}).encode()

    def taken(**condition: str) -> bool:
        return _put(lambda: s3.put_object(Bucket=bucket, Key=key, Body=lease(), **condition))

    told = False
    while not taken(IfNoneMatch="*"):
        if (found := _read(s3, bucket, key)) is None:
            continue  # let go of just now
        etag, standing = found
        if datetime.fromisoformat(standing["until"]) < datetime.now(UTC) and taken(IfMatch=etag):
            break  # its holder was killed, and of those who wait one took it
        if not told:
            log.warning("another run is at work on %s; waiting", key.rpartition("/")[2])
            told = True
        time.sleep(_POLL_S)
    try:
        yield
    finally:
        found = _read(s3, bucket, key)
        if found and found[1]["holder"] == holder:
            s3.delete_object(Bucket=bucket, Key=key)


def _read(s3: Any, bucket: str, key: str) -> tuple[str, dict[str, str]] | None:
    from botocore.exceptions import ClientError

    try:
        answer = s3.get_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if error.response["Error"]["Code"] == "NoSuchKey":
            return None
        raise
    return answer["ETag"], json.loads(answer["Body"].read())


def _put(write: Callable[[], object]) -> bool:
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
