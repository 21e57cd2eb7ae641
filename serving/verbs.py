"""The endpoint's verbs over HTTP, wherever it listens: what a canary's target needs."""

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lineage.errors import StepFailed
from serving.target import Answer, Tag, Variant

if TYPE_CHECKING:
    import httpx

_LOAD_TIMEOUT_S = 300.0  # a model's first load imports the preprocessing library


class Verbs(ABC):
    """Speaks to an endpoint of `serving.app`; a `Target`.

    Attributes:
        timeout_s: Bounds each prediction.
    """

    timeout_s: float
    _kept: dict[str, Any]

    @abstractmethod
    def bearer(self) -> str:
        """The token that every route but `/ping` asks for."""

    @abstractmethod
    def base_url(self) -> str:
        """Where it listens."""

    def deploy(
        self, variant: str, directory: Path, digest: str, version: str, share: float
    ) -> None:
        """Load a model; see `Target`.

        Raises:
            StepFailed: The endpoint refuses it, with its reason, or does not answer.
        """
        wanted = {"directory": str(directory), "digest": digest, "version": version, "share": share}
        self.ask("PUT", f"/variants/{variant}", wanted)

    def shift(self, shares: Mapping[str, float]) -> None:
        """Set all shares; see `Target`."""
        self.ask("PUT", "/shares", dict(shares))

    def remove(self, variant: str) -> None:
        """Unload a variant; see `Target`."""
        self.ask("DELETE", f"/variants/{variant}")

    def state(self) -> tuple[Variant, ...]:
        """What is loaded; see `Target`."""
        return tuple(Variant(**each) for each in self.ask("GET", "/state")["variants"])

    def invoke(
        self, data: bytes, media_type: str, tag: Tag = "live", request_id: str | None = None
    ) -> Answer:
        """Ask for one prediction; see `Target`."""
        import httpx

        headers = {"Content-Type": media_type, "X-Lightbox-Tag": tag}
        if request_id:
            headers["X-Request-Id"] = request_id
        began = time.perf_counter()
        try:
            response = self._client().post("/invocations", content=data, headers=headers)
            told = response.json()
        except httpx.TimeoutException:
            return _lost("timeout", began)
        except (httpx.HTTPError, ValueError):
            return _lost("no answer", began)
        error = None if response.status_code == 200 else str(response.status_code)
        return Answer(
            variant=told.get("variant"),
            digest=response.headers.get("X-Model-Digest"),
            score=told.get("score"),
            flagged=told["score"] >= told["threshold"] if error is None else None,
            latency_ms=told.get("latency_ms", (time.perf_counter() - began) * 1000),
            error=error,
            label=told.get("label"),
            sentence=told.get("sentence", ""),
        )

    def _client(self) -> "httpx.Client":
        """One client for all requests to one address, so that connections are kept."""
        import httpx

        client: httpx.Client | None = self._kept.get("client")
        if client is None:
            client = self._kept["client"] = httpx.Client(
                base_url=self.base_url(),
                headers={"Authorization": f"Bearer {self.bearer()}"},
                timeout=self.timeout_s,
                trust_env=False,  # no proxy stands between this machine and itself
            )
        return client

    def ask(self, method: str, path: str, body: Any = None, content: Any = None) -> dict[str, Any]:
        """Send one of the verbs that manage variants; the endpoint's answer.

        Raises:
            StepFailed: It refuses, with its reason, or does not answer.
        """
        import httpx

        for attempt in (1, 2):  # each of these verbs does the same when sent twice
            try:
                response = self._client().request(
                    method, path, json=body, content=content, timeout=_LOAD_TIMEOUT_S
                )
                break
            except httpx.TransportError as error:
                self._kept.clear()  # it ended, or came back at another port, since we last spoke
                if attempt == 2 or isinstance(error, httpx.TimeoutException):
                    kind = type(error).__name__
                    raise StepFailed(f"the endpoint does not answer ({kind})") from None
        if not response.is_success:
            try:
                sentence = response.json()["sentence"]
            except (ValueError, KeyError, TypeError):
                sentence = "it does not say why"
            raise StepFailed(f"the endpoint refused ({response.status_code}): {sentence}")
        told: dict[str, Any] = response.json()
        return told


def _lost(kind: str, began: float) -> Answer:
    return Answer(None, None, None, None, (time.perf_counter() - began) * 1000, kind)
