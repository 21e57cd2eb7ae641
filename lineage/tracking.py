"""MLflow's database in a workspace: whole or absent, as everything here is."""

import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from lineage import telemetry
from lineage.errors import BadInput
from lineage.workspace import Workspace

SQLITE = "sqlite:///"


def tracking_uri(place: Workspace) -> str:
    """Where MLflow keeps runs and models; a database that is to lie in the workspace is made first.

    It is made aside and put into place when whole. MLflow itself builds its tables in dozens of
    migrations, and a kill among them leaves a file that it can neither use nor mend.

    Raises:
        BadInput: A file lies there that is no database, or is damaged or emptied.
    """
    uri = place.mlflow_uri
    path = Path(uri.removeprefix(SQLITE))
    if uri.startswith(SQLITE) and path.exists():
        if path.is_file() and path.stat().st_size == 0:  # MLflow would begin anew, without a word
            raise BadInput(f"{path.name} is empty: restore it from a backup, or remove it")
        ask(path, "SELECT count(*) FROM sqlite_master")  # MLflow would try for minutes
    elif uri.startswith(SQLITE):
        telemetry.off()
        from mlflow import MlflowClient

        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        draft.unlink(missing_ok=True)  # of a process of that number that was killed
        MlflowClient(f"{SQLITE}{draft}").search_experiments()
        with suppress(FileExistsError):  # another process has just made one
            os.link(draft, path)
        draft.unlink()
    return uri


def ask(path: Path, query: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]] | None:
    """Ask MLflow's SQLite file without importing MLflow; None if its tables are unknown to us.

    Raises:
        BadInput: It cannot be opened, is no database, or is damaged.
    """
    try:
        address = f"{path.absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(address, uri=True, timeout=10)) as database:
            return database.execute(query, values).fetchall()
    except sqlite3.DatabaseError as error:
        unread = error.sqlite_errorname.startswith(("SQLITE_CANTOPEN", "SQLITE_IOERR"))
        if isinstance(error, sqlite3.OperationalError) and not unread:
            return None
        raise BadInput(
            f"{path.name}, which holds runs and models, cannot be read ({error}): give back the "
            "right to read it, or restore it from a backup; `lightbox doctor` looks at the rest"
        ) from error
