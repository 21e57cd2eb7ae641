from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from manifest_rows import manifest_row

from imaging.manifest import read_manifest, write_manifest
from imaging.snapshots import history
from lineage.errors import BadInput
from lineage.files import write_json


def day(number: int) -> datetime:
    return datetime(2026, 1, number, tzinfo=UTC)


def taken(folder: Path, rows: list[dict[str, Any]], dates: str = "modified") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_manifest(rows, folder)
    write_json(folder / "deidentification.json", {"policy": {"dates": dates}})
    return folder


def test_labels_are_told_as_they_were_known_then(tmp_path: Path) -> None:
    ledger, here = tmp_path / "history", tmp_path / "s"
    first = [manifest_row(i) for i in range(3)]
    assert history.remember(taken(here, first), ledger, "m", day(1)) == 3
    second = [first[0] | {"label": 1, "sex": "F"}, first[1], manifest_row(7)]
    assert history.remember(taken(here, second), ledger, "m", day(5)) == 3  # changed, new, gone
    assert history.remember(here, ledger, "m", day(6)) == 0

    then, now = (history.as_of(ledger, "m", day(n)) for n in (4, 5))
    assert then["instance_uid"].tolist() == ["2.25.0", "2.25.1", "2.25.2"]
    assert (then["label"].tolist(), then["sex"].isna().all()) == ([0, 1, 0], True)
    assert now["instance_uid"].tolist() == ["2.25.0", "2.25.1", "2.25.7"]
    assert now["label"].tolist() == [1, 1, 1]
    assert history.as_of(ledger, "m", datetime(2025, 12, 31, tzinfo=UTC)).empty
    assert list(now.columns) == list(read_manifest(here).columns)


def test_a_place_in_the_source_is_no_news(tmp_path: Path) -> None:
    rows = [manifest_row(i, source_order_decile=i) for i in range(2)]
    history.remember(taken(tmp_path / "s", rows), tmp_path / "h", "m", day(1))
    moved = [row | {"source_order_decile": 9, "path": "elsewhere"} for row in rows]
    assert history.remember(taken(tmp_path / "s", moved), tmp_path / "h", "m", day(2)) == 0


def test_labels_by_when_they_became_known(tmp_path: Path) -> None:
    ledger, here = tmp_path / "h", tmp_path / "s"
    rows = [manifest_row(1, label=0, label_known_since=date(2020, 1, 1)), manifest_row(2)]
    history.remember(taken(here, rows, "full"), ledger, "m", day(1))
    rows[0] |= {"label": 1, "label_known_since": date(2021, 1, 1)}
    history.remember(taken(here, rows, "full"), ledger, "m", day(2))

    def labels(year: int) -> list[int]:
        when = datetime(year, 6, 1, tzinfo=UTC)
        return list(history.as_of(ledger, "m", when, clock="label_known_since")["label"])

    assert [labels(year) for year in (2019, 2020, 2021)] == [[], [0], [1]]
    history.remember(taken(here, rows[1:], "full"), ledger, "m", day(3))
    assert labels(2021) == []  # what we no longer hold is not given out again


def test_a_moved_date_is_no_time_to_know_a_label_by(tmp_path: Path) -> None:
    rows = [manifest_row(1, label_known_since=date(1915, 1, 1))]
    history.remember(taken(tmp_path / "s", rows), tmp_path / "h", "m", day(1))
    with pytest.raises(BadInput, match="that takes true dates"):
        history.as_of(tmp_path / "h", "m", day(2), clock="label_known_since")


def test_histories_do_not_mix_and_an_unknown_one_is_refused(tmp_path: Path) -> None:
    ledger = tmp_path / "h"
    history.remember(taken(tmp_path / "a", [manifest_row(1)]), ledger, "m", day(1))
    history.remember(taken(tmp_path / "b", [manifest_row(2)]), ledger, "m2", day(1))
    assert history.names(ledger) == ["m", "m2"]
    assert len(history.as_of(ledger, "m", day(2))) == 1
    with pytest.raises(BadInput, match="there is no history called 'x'"):
        history.as_of(ledger, "x", day(2))
    with pytest.raises(BadInput, match="known_since_column"):
        history.as_of(ledger, "m", day(2), clock="label_known_since")
    with pytest.raises(BadInput, match="is no name of a history"):
        history.as_of(ledger, "../m", day(2))


@settings(max_examples=15, deadline=None)
@given(
    versions=st.lists(st.dictionaries(st.integers(0, 4), st.integers(0, 1)), min_size=1, max_size=4)
)
def test_every_snapshot_can_be_had_back(
    versions: list[dict[int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("history")
    for n, version in enumerate(versions, start=1):
        rows = [manifest_row(i, label=label) for i, label in version.items()]
        history.remember(taken(root / "s", rows), root / "h", "m", day(n))
    for n, version in enumerate(versions, start=1):
        if any(versions[:n]):
            found = history.as_of(root / "h", "m", day(n))
            labels = dict(zip(found["instance_uid"], found["label"], strict=True))
            assert labels == {f"2.25.{i}": label for i, label in version.items()}
