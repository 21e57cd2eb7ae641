"""What was known when: every row of a manifest, with the time at which we first held it so.

`ledgers/history/<name>@<time>-<hex>.parquet` holds the rows that a snapshot brought new, changed or
no longer had; files are only ever added. A label has two times: `recorded_at`, when it came to us,
and `label_known_since`, when whoever gave it says that it became known. The latter is a date of a
patient's: where the policy moves dates, it orders nothing across patients, and is not kept here.
"""

import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from uuid import uuid4

from imaging.manifest import read_manifest
from imaging.snapshots.differences import changed_values
from lineage.errors import BadInput
from lineage.files import read_json

if TYPE_CHECKING:
    import pandas as pd

Clock = Literal["recorded_at", "label_known_since"]
NAME = re.compile(r"[A-Za-z0-9._-]+")


def remember(snapshot: Path, folder: Path, name: str, at: datetime | None = None) -> int:
    """Add what a snapshot has otherwise than the history; the same again adds nothing.

    Args:
        snapshot: With its manifest.
        folder: The history's files.
        name: Whose history: snapshots of one name are versions of one data set.
        at: Now, unless a test says otherwise.

    Returns:
        Rows added.
    """
    import pandas as pd

    at = at or datetime.now(UTC)
    now = read_manifest(snapshot).set_index("instance_uid")
    if _dates(snapshot) != "full":
        now["label_known_since"] = None
    known = _state(_read(folder, name))
    both = now.index.intersection(known.index)
    differ = pd.DataFrame(changed_values(known.loc[both], now.loc[both]), index=both).any(axis=1)
    # What is no longer there is written once more, as it was, and marked.
    gone = known.loc[known.index.difference(now.index)]
    news = [now.loc[now.index.difference(known.index)], now.loc[both[differ]], gone]
    rows = pd.concat(
        [part.assign(gone=part is gone, recorded_at=at) for part in news if len(part)] or [now[:0]]
    )
    if len(rows):
        folder.mkdir(parents=True, exist_ok=True)
        place = folder / f"{name}@{at:%Y%m%dT%H%M%S%f}-{uuid4().hex[:8]}.parquet"
        draft = place.with_name(f".{place.name}.{os.getpid()}")
        rows.reset_index().to_parquet(draft, index=False)
        draft.replace(place)
    return len(rows)


def as_of(folder: Path, name: str, when: datetime, clock: Clock = "recorded_at") -> "pd.DataFrame":
    """The features and labels as they were known at a time.

    Args:
        folder: The history's files.
        name: Whose history.
        when: With a time zone.
        clock: `recorded_at`: what we held then. `label_known_since`: of what we hold now, the
            labels that were known then; rows whose label has no such time are left out.

    Returns:
        One row per instance, columns as in the manifest, sorted by `instance_uid`.

    Raises:
        BadInput: There is no such history, or nobody says since when its labels are known.
    """
    import pandas as pd

    rows = _read(folder, name)
    if rows.empty:
        raise BadInput(
            f"there is no history called {name!r}; there is {names(folder) or 'none yet'}: it "
            "grows with each run of ingest"
        )
    if clock == "recorded_at":
        rows = _state(rows[rows["recorded_at"] <= pd.Timestamp(when)])
        return rows.drop(columns="recorded_at").sort_index().reset_index()
    if rows["label_known_since"].isna().all():
        raise BadInput(
            "nobody says since when the labels are known: that takes true dates "
            "(ingestion.deidentification.dates: full) and a column that says it "
            "(ingestion.labels.known_since_column)"
        )
    held = _state(rows).index
    rows = rows[rows["instance_uid"].isin(held) & ~rows["gone"]]
    rows = rows[pd.to_datetime(rows["label_known_since"], utc=True) <= pd.Timestamp(when)]
    rows = rows.sort_values(["label_known_since", "recorded_at"], kind="stable")
    last = rows.drop_duplicates("instance_uid", keep="last")
    return last.drop(columns=["gone", "recorded_at"]).sort_values("instance_uid", ignore_index=True)


def names(folder: Path) -> list[str]:
    """The histories there are."""
    return sorted({path.name.rpartition("@")[0] for path in folder.glob("[!.]*@*.parquet")})


def times(folder: Path, name: str) -> "pd.DataFrame":
    """When a history grew: columns recorded_at, rows, gone; oldest first."""
    rows = _read(folder, name)
    by_time = rows.groupby("recorded_at")["gone"]
    return by_time.agg(rows="size", gone="sum").reset_index()


def _dates(snapshot: Path) -> str | None:
    """What became of dates: `full`, `modified` or `removed`."""
    proof: dict[str, Any] = read_json(snapshot / "deidentification.json") or {}
    policy: dict[str, str] = proof.get("policy", {})
    return policy.get("dates")


def _state(rows: "pd.DataFrame") -> "pd.DataFrame":
    """What is there after all these rows, by instance."""
    last = rows.drop_duplicates("instance_uid", keep="last").set_index("instance_uid")
    return last[~last["gone"].astype(bool)].drop(columns="gone")


def _read(folder: Path, name: str) -> "pd.DataFrame":
    """All rows of a history, oldest first."""
    import pandas as pd

    if not NAME.fullmatch(name):
        raise BadInput(f"{name!r} is no name of a history: letters, digits and . _ - only")
    parts = [pd.read_parquet(path) for path in sorted(folder.glob(f"{name}@*.parquet"))]
    if not parts:
        return pd.DataFrame({"instance_uid": [], "gone": [], "recorded_at": []})
    # Sorted anew: clocks of several machines may differ by more than a file's name tells.
    return pd.concat(parts, ignore_index=True).sort_values("recorded_at", kind="stable")
