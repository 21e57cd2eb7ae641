"""MLflow's database in a workspace: whole or absent, as everything here is."""

import os
from contextlib import suppress
from pathlib import Path

from lineage import telemetry
from lineage.workspace import Workspace

SQLITE = "sqlite:///"


def tracking_uri(place: Workspace) -> str:
    """Where MLflow keeps runs and models; a database that is to lie in the workspace is made first.

    It is made aside and put into place when whole. MLflow itself builds its tables in dozens of
    migrations, and a kill among them leaves a file that it can neither use nor mend.
    """
    uri = place.mlflow_uri
    path = Path(uri.removeprefix(SQLITE))
    if uri.startswith(SQLITE) and not path.exists():
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
