"""A bucket as runs use it: data under its digest, brought once, encrypted, and never changed."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lineage.digest import RECORD, digest, tree_digest
from lineage.errors import BadInput, StepFailed


@dataclass(frozen=True)
class Bucket:
    """Where runs of one environment find their files."""

    s3: Any  # boto3's client
    name: str
    kms_key: str = ""

    def upload(self, path: Path, content: str) -> str:
        """Bring a file or folder to `sources/<digest>/`, if it is not there whole; its URI."""
        prefix = f"sources/{content}"
        mark = f"sources/uploaded/{content}.json"  # written last, and not within what steps read
        if not self.holds(mark):
            files = list(_files(path))
            for file, name in files:  # in parts and side by side where it is large
                self.s3.upload_file(
                    str(file), self.name, f"{prefix}/{name}", ExtraArgs=self._encryption()
                )
            if not files:  # S3 has no empty folders; the record of an output counts for nothing
                self.put(f"{prefix}/{RECORD}", b"{}")
            if tree_digest(path) != content:
                raise StepFailed("a source changed while it was uploaded; submit again")
            self.put(mark, json.dumps({"files": len(files)}).encode())
        return f"s3://{self.name}/{prefix}" + (f"/{path.name}" if path.is_file() else "")

    def put(self, key: str, body: bytes) -> None:
        """Write one object."""
        self.s3.put_object(Bucket=self.name, Key=key, Body=body, **self._encryption())

    def holds(self, key: str) -> bool:
        """Whether there is such an object."""
        from botocore.exceptions import ClientError

        try:
            self.s3.head_object(Bucket=self.name, Key=key)
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
                return False
            raise
        return True

    def _encryption(self) -> dict[str, str]:
        if not self.kms_key:
            return {}  # the bucket's own default
        return {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": self.kms_key}


def listing_digest(s3: Any, uri: str) -> str:
    """A digest of what lies below an S3 URI: names, sizes and ETags, for other bytes have others.

    Raises:
        BadInput: Nothing lies there.
    """
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    found = [[o["Key"], o["Size"], o["ETag"]] for page in pages for o in page.get("Contents", [])]
    if not found:
        raise BadInput(f"sources: nothing lies at {uri}")
    whole = prefix.rstrip("/")
    if any(key != whole and not key.startswith(f"{whole}/") for key, *_ in found):
        raise BadInput(
            f"sources: {uri} is the beginning of other names too, and SageMaker would hand those "
            "to the step as well; end it in a slash"
        )
    return digest("s3 objects", found)


def _files(path: Path) -> Iterator[tuple[Path, str]]:
    """Every file at or below a path, with the name that it gets."""
    if path.is_file():
        yield path, path.name
        return
    for file in sorted(path.rglob("*")):
        if file.is_file():
            yield file, file.relative_to(path).as_posix()
