"""A prefix or an object of S3, or of a store that speaks its language (`AWS_ENDPOINT_URL`)."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import IO, Any

from imaging.incoming.mirror import Again, Listing, Remote
from lineage.digest import digest
from lineage.errors import BadInput, StepFailed

ODD = "odd-names"  # where objects go whose keys no file can bear
CHUNK_BYTES = 2**20
MAY_PASS = {"RequestTimeout", "SlowDown", "InternalError", "ServiceUnavailable", "503", "500"}


class S3:
    """What lies at `s3://BUCKET/PREFIX`; credentials and region as boto3 finds them."""

    threads = 16

    def __init__(self, address: str) -> None:
        self.address = address
        self.bucket, _, self.prefix = address.removeprefix("s3://").partition("/")
        if not self.bucket:
            raise BadInput(f"{address}: no bucket is named; s3://BUCKET/PREFIX")

    def listing(self) -> Listing:
        """The object of that very key if there is one, else all below the prefix."""
        whole = self.prefix.rstrip("/")
        with self._explained():
            if whole == self.prefix and whole:
                first = self._client.list_objects_v2(Bucket=self.bucket, Prefix=whole, MaxKeys=1)
                for found in first.get("Contents", []):
                    if found["Key"] == whole:
                        name = _names([whole.rpartition("/")[2]])[0]
                        return Listing([self._remote(found, name)], single=True)
            below = f"{whole}/" if whole else ""
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=below
            )
            # What ends in a slash and is empty is how consoles show a folder.
            objects = [
                found
                for page in pages
                for found in page.get("Contents", [])
                if found["Size"] or not found["Key"].endswith("/")
            ]
        if not objects:
            way = "; a prefix ends at a slash, so that `a` is not `ab/…`" if whole else ""
            raise BadInput(f"nothing lies at {self.address}{way}")
        names = _names([found["Key"].removeprefix(below) for found in objects])
        return Listing([self._remote(o, n) for o, n in zip(objects, names, strict=True)])

    def fetch(self, remote: Remote, part: IO[bytes]) -> None:
        """Fetch just the content that was listed."""
        with self._explained():
            answer = self._client.get_object(
                Bucket=self.bucket, Key=remote.place, IfMatch=remote.stamp
            )
            for chunk in answer["Body"].iter_chunks(CHUNK_BYTES):
                part.write(chunk)

    @staticmethod
    def _remote(found: dict[str, Any], name: str) -> Remote:
        return Remote(name, found["Key"], found["ETag"], found["Size"])

    @cached_property
    def _client(self) -> Any:
        import boto3
        from botocore.config import Config

        # How often boto3 itself asks again is for AWS_MAX_ATTEMPTS to say.
        return boto3.client(
            "s3",
            config=Config(
                retries={"mode": "standard"},
                max_pool_connections=self.threads,
                connect_timeout=10,
                read_timeout=60,
            ),
        )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Errors of boto3 as a sentence; what may pass is asked for again."""
        from botocore import exceptions as e

        try:
            yield
        except e.ClientError as error:
            code = error.response["Error"]["Code"]
            if code in MAY_PASS:
                raise Again(f"{self.bucket}: {code}") from None
            if code in ("PreconditionFailed", "NoSuchKey"):
                raise StepFailed("an object changed after it was listed; run again") from None
            raise BadInput(
                f"{self.address}: {code}; see that the bucket is the right one, and that your "
                "credentials may list and read it"
            ) from None
        except (e.NoCredentialsError, e.PartialCredentialsError, e.ProfileNotFound) as error:
            raise BadInput(
                f"{self.address}: {type(error).__name__}; boto3 finds credentials in AWS_PROFILE, "
                "in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or in the role of the machine"
            ) from None
        except e.ParamValidationError:
            raise BadInput(f"{self.address}: no bucket can be named so") from None
        except (e.BotoCoreError, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # of the disk that it is written to
            raise Again(f"{self.bucket}: {type(error).__name__}") from None


def _names(keys: list[str]) -> list[str]:
    """A file's name for each key: the key itself, or its digest where no file can bear it.

    Keys are any text, and a file system has rules: `..` leads out of the folder, `a//b` and `a/b`
    are one place, and `a` cannot be both a file and a folder. Their content says what they are.
    """
    folders = {key[: slash.start()] for key in keys for slash in re.finditer("/", key)}
    return [
        f"{ODD}/{digest('key', key)}" if key in folders or not _bearable(key) else key
        for key in keys
    ]


def _bearable(key: str) -> bool:
    parts = key.split("/")
    return (
        not {"", ".", ".."} & set(parts)
        and "\0" not in key
        and all(len(part.encode()) <= 255 for part in parts)
        and len(key.encode()) <= 2000
        and parts[0] != ODD
    )
