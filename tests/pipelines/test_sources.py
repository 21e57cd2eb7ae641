import pytest

from lineage.errors import BadInput
from pipelines.graph import Source
from pipelines.sources import resolve


def test_a_path_is_found_and_a_missing_one_names_its_setting(home, tmp_path) -> None:
    scans = tmp_path / "scans"
    scans.mkdir()
    assert resolve(Source("scans", str(scans)), home) == scans
    with pytest.raises(BadInput, match=r"sources\.scans: .*gone does not exist$"):
        resolve(Source("scans", str(tmp_path / "gone")), home)


def test_a_missing_relative_path_says_where_it_was_looked_for(home, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match=rf"data does not exist; looked from {tmp_path}, for rel"):
        resolve(Source("scans", "data"), home)


@pytest.mark.parametrize("below", [".", "home", "linked"])
def test_data_that_hold_the_workspace_are_refused(home, tmp_path, below) -> None:
    home.home.mkdir()
    (tmp_path / "linked").symlink_to(home.home)
    with pytest.raises(BadInput, match=r"sources\.scans: the workspace lies in .*LIGHTBOX_HOME"):
        resolve(Source("scans", str(tmp_path / below)), home)
    (home.home / "demo").mkdir()
    inside = home.home / "demo"
    assert resolve(Source("scans", str(inside)), home) == inside


def test_no_traffic_and_no_champion_yet_are_empty_folders(home) -> None:
    assert list(resolve(Source("traffic", "captured:nobody"), home).iterdir()) == []
    assert list(resolve(Source("champion", "champion:nobody"), home).iterdir()) == []
