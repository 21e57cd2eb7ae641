"""What AWS answers, in our own kinds of failure."""

from collections.abc import Iterator
from contextlib import contextmanager

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
)
from botocore.exceptions import ConnectionError as NoConnection

from lineage.errors import BadInput, StepFailed
from pipelines.submitting.engine import Unreachable

PASSING = ("Throttling", "ThrottlingException", "TooManyRequestsException", "RequestTimeout")


@contextmanager
def explained(doing: str) -> Iterator[None]:
    """AWS's errors in our sentences; their messages may quote more than a log should hold."""
    try:
        yield
    except (NoCredentialsError, PartialCredentialsError):
        raise BadInput(
            "AWS asks who this is: no credentials were found; set AWS_PROFILE, or let the CI job "
            "take on a role"
        ) from None
    except ClientError as error:
        code = error.response["Error"]["Code"]
        status = error.response["ResponseMetadata"].get("HTTPStatusCode", 0)
        told = f"{doing}: {error.operation_name} was answered with {code}"
        if code in PASSING or status >= 500:
            raise Unreachable(told) from error
        if status in (401, 403) or "AccessDenied" in code or "ExpiredToken" in code:
            raise BadInput(f"{told}; look at the role's permissions and the token's age") from error
        raise StepFailed(told) from error
    except (HTTPClientError, NoConnection) as error:
        raise Unreachable(f"{doing}: {type(error).__name__}") from error
    except BotoCoreError as error:
        raise StepFailed(f"{doing}: {type(error).__name__}") from error
