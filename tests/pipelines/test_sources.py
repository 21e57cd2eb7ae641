import pytest

from lineage.errors import BadInput
from pipelines.graph import Source
from pipelines.sources import resolve


def test_a_path_is_found_and_a_missing_one_names_its_setting(home, tmp_path) -> None:
    assert resolve(Source("scans", str(tmp_path)), home) == tmp_path
    with pytest.raises(BadInput, match=r"sources\.scans: .*gone does not exist"):
        resolve(Source("scans", str(tmp_path / "gone")), home)


def test_no_traffic_and_no_champion_yet_are_empty_folders(home) -> None:
    assert list(resolve(Source("traffic", "captured:nobody"), home).iterdir()) == []
    assert list(resolve(Source("champion", "champion:nobody"), home).iterdir()) == []
