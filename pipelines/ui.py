"""MLflow's own pages on this workspace, for the one who started them.

They have no login, and whoever reaches them may edit. So they are bound to the loopback interface,
and, because every account of a machine shares that, they stand behind a door: the address that is
printed holds a key which opens it to one browser.
"""

import os
import secrets
import socket
import webbrowser
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from lineage import telemetry
from lineage.errors import BadInput
from lineage.workspace import Workspace

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

HOST = "127.0.0.1"
SQLITE = "sqlite:///"
# MLflow's assistant runs commands on this machine and asks language models elsewhere.
SHUT = ("/ajax-api/3.0/mlflow/assistant", "/gateway/")


def serve(place: Workspace, port: int, *, browser: bool, tell: Callable[[str], None]) -> None:
    """Show MLflow's pages until Ctrl-C; there is no other process that could be left behind.

    Args:
        place: Whose runs and models.
        port: Where to listen; 0 takes any free one.
        browser: Whether to open the pages in the user's browser.
        tell: Told where the pages are.

    Raises:
        BadInput: Nothing is tracked yet, the port is taken, or MLflow cannot read its database.
    """
    if is_server(place.mlflow_uri):
        tell(f"MLflow runs elsewhere: {without_password(place.mlflow_uri)}")
        return
    if place.mlflow_uri.startswith(SQLITE) and not _file(place.mlflow_uri).exists():
        raise BadInput("nothing is tracked here yet; `lightbox run CONFIG` changes that")
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
        except OSError as error:
            raise BadInput(f"port {port}: {error.strerror}; choose another by --port") from None
        port = listener.getsockname()[1]
        door = Door(_mlflow_pages(place), port)
        listener.listen()  # from now on a browser is kept waiting, not refused
        tell(f"MLflow's pages: {door.address}")
        tell("This address opens them once, in one browser on this machine. Ctrl-C ends them.")
        # Without a screen Python would start a text browser, and wait for it to end.
        if browser and os.environ.keys() & {"DISPLAY", "WAYLAND_DISPLAY", "BROWSER"}:
            webbrowser.open(door.address)
        _run(door, listener)


def is_server(uri: str) -> bool:
    """Whether an MLflow server stands at this address, and so has pages of its own."""
    return uri.startswith(("http://", "https://", "arn:", "databricks"))


def without_password(uri: str) -> str:
    """An address fit to be shown: no user, no password, no query."""
    parts = urlsplit(uri)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


class Door:
    """Lets in the browser that comes with the key, and knows it again by a cookie.

    The key opens once: a browser's command line, and with it the address, can be read by every
    account of the machine.
    """

    def __init__(self, app: "ASGIApp", port: int) -> None:
        self.app = app
        self.cookie = f"lightbox-{port}"  # a browser sends cookies to all ports of a host
        self.key: str | None = secrets.token_urlsafe(24)
        self.guest = secrets.token_urlsafe(24)
        self.address = f"http://{HOST}:{port}/?key={self.key}"

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Answer one request, as ASGI wants it."""
        from starlette.requests import Request
        from starlette.responses import PlainTextResponse, RedirectResponse, Response

        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        request = Request(scope)
        if _same(request.cookies.get(self.cookie), self.guest):
            shut = PlainTextResponse("Turned off by `lightbox ui`.\n", 404)
            app = shut if scope["path"].startswith(SHUT) else self.app
            return await app(scope, receive, send)
        told = "Closed. Start `lightbox ui` again, and open the address that it prints.\n"
        answer: Response = PlainTextResponse(told, 401)
        if _same(request.query_params.get("key"), self.key):
            self.key = None
            answer = RedirectResponse("/#/experiments", 303, {"Referrer-Policy": "no-referrer"})
            answer.set_cookie(self.cookie, self.guest, httponly=True, samesite="lax")
        return await answer(scope, receive, send)


def _same(given: str | None, wanted: str | None) -> bool:
    return bool(given and wanted and secrets.compare_digest(given.encode(), wanted.encode()))


def _mlflow_pages(place: Workspace) -> "ASGIApp":
    """MLflow's own server, set up as `mlflow server` does it."""
    telemetry.off()
    os.environ |= {
        # Only these names in a request: another site's name that leads here is an attack.
        "MLFLOW_SERVER_ALLOWED_HOSTS": "127.0.0.1:*,localhost:*",
        "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": "http://127.0.0.1",
        "MLFLOW_SERVER_X_FRAME_OPTIONS": "DENY",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_ENABLE_REMOTE_ASSISTANT": "false",
    }
    os.environ.pop("MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE", None)
    from mlflow.exceptions import MlflowException
    from mlflow.server import ARTIFACT_ROOT_ENV_VAR, BACKEND_STORE_URI_ENV_VAR, handlers

    root = place.mlflow_artifacts.as_uri()
    try:
        handlers.initialize_backend_stores(place.mlflow_uri, None, root)
    except MlflowException as error:
        kind = type(error).__name__
        way = "`lightbox doctor` says more"
        raise BadInput(f"MLflow cannot read its database ({kind}); {way}") from None
    os.environ |= {BACKEND_STORE_URI_ENV_VAR: place.mlflow_uri, ARTIFACT_ROOT_ENV_VAR: root}
    from mlflow.server.fastapi_app import app

    pages: ASGIApp = app
    return pages


def _run(door: Door, listener: socket.socket) -> None:
    import uvicorn

    settings = uvicorn.Config(
        door,
        log_level="warning",
        access_log=False,
        ws="none",  # MLflow has no web sockets, and the door watches none
        proxy_headers=False,
        timeout_graceful_shutdown=2,
    )
    with suppress(KeyboardInterrupt):  # the way in which it is meant to end
        uvicorn.Server(settings).run(sockets=[listener])


def _file(uri: str) -> Path:
    return Path(uri.removeprefix(SQLITE)).absolute()
