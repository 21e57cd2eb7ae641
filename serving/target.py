"""What a canary needs of the place that serves: verbs that KServe and SageMaker have as well."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

Tag = Literal["live", "replay"]


@dataclass(frozen=True)
class Variant:
    """One loaded model beside others; `share` is its part of the traffic, 0..1."""

    name: str
    version: str
    digest: str
    share: float
    requests: int = 0
    errors: int = 0


@dataclass(frozen=True)
class Answer:
    """What came back for one request.

    `variant` is None if nobody can tell who failed; `error` is None for an answer, or a kind
    such as "500" or "timeout", and `sentence` says more, if the server did. `latency_ms` is the
    server's own measure where it gives one.
    """

    variant: str | None
    digest: str | None
    score: float | None
    flagged: bool | None
    latency_ms: float
    error: str | None
    label: str | None = None
    sentence: str = ""


class Target(Protocol):
    """A place that serves variants side by side."""

    def deploy(
        self, variant: str, directory: Path, digest: str, version: str, share: float
    ) -> None:
        """Load a model, digest checked, and give it a share; the others shrink in proportion."""

    def shift(self, shares: Mapping[str, float]) -> None:
        """Set the shares of all variants at once; they sum to 1."""

    def remove(self, variant: str) -> None:
        """Unload a variant that gets no traffic, or the last one."""

    def state(self) -> tuple[Variant, ...]:
        """What is loaded, as the serving side itself says."""

    def invoke(
        self, data: bytes, media_type: str, tag: Tag = "live", request_id: str | None = None
    ) -> Answer:
        """Ask for one prediction. Never raises for an answer that went wrong."""
