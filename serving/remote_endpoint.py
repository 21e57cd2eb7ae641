"""An endpoint that runs elsewhere, for jobs that end: a service of its own, found by its URL."""

import json
import os
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lineage.errors import BadInput
from lineage.progress import Report
from lineage.workspace import Workspace
from serving.config import ENDPOINT_URL, TOKEN, DeploymentConfig
from serving.local_endpoint import LocalEndpoint
from serving.verbs import Verbs

_CHUNK_BYTES = 2**20


@dataclass(frozen=True)
class RemoteEndpoint(Verbs):
    """`serving.app` at a URL. It shares no disk with us, so that models are sent to it."""

    url: str
    secret: str = field(repr=False)
    timeout_s: float = 30.0
    _kept: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def bearer(self) -> str:
        """As it was given."""
        return self.secret

    def base_url(self) -> str:
        """As it was given."""
        return self.url

    def deploy(
        self, variant: str, directory: Path, digest: str, version: str, share: float
    ) -> None:
        """Send a model unless it is there, and load it; see `Target`."""
        place = self.ask("PUT", f"/models/{digest}", content=_Packed(directory))["directory"]
        super().deploy(variant, Path(place), digest, version, share)

    def served(self) -> dict[str, float] | None:
        """Share by model digest, with the standard library only; None if nobody of ours answers."""
        from urllib.error import URLError
        from urllib.request import HTTPRedirectHandler, Request, build_opener

        class Stay(HTTPRedirectHandler):  # the token is for this host
            def redirect_request(self, *_: Any) -> None:
                return None

        bearer = {"Authorization": f"Bearer {self.secret}"}
        wanted = Request(f"{self.url}/state", headers=bearer)  # noqa: S310  http or https
        try:
            with build_opener(Stay).open(wanted, timeout=5) as answer:
                told = json.loads(answer.read())
            return {each["digest"]: each["share"] for each in told["variants"]}
        except (URLError, OSError, ValueError, KeyError, TypeError):
            return None


def endpoint_of(
    place: Workspace,
    model: str,
    config: DeploymentConfig | None = None,
    report: Report | None = None,
) -> LocalEndpoint | RemoteEndpoint:
    """Where a registered model is served: at `LIGHTBOX_ENDPOINT_URL`, or on this machine.

    Raises:
        BadInput: The variable holds no URL of http or https.
    """
    settings = config or DeploymentConfig()
    if url := os.environ.get(ENDPOINT_URL):
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
            raise BadInput(f"{ENDPOINT_URL} holds no URL of http or https")
        return RemoteEndpoint(url.rstrip("/"), place.secret(TOKEN).hex(), settings.timeout_s)
    return LocalEndpoint(
        place,
        model,
        settings.timeout_s,
        settings.idle_timeout_minutes,
        settings.startup_timeout_s,
        report,
    )


class _Packed:
    """A folder as one tar: a body that can be sent again if the connection breaks."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __iter__(self) -> Iterator[bytes]:
        with tempfile.TemporaryFile() as file:
            with tarfile.open(fileobj=file, mode="w") as tar:
                tar.add(self._folder, arcname=".")
            file.seek(0)
            while chunk := file.read(_CHUNK_BYTES):
                yield chunk
