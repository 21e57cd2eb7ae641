import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from lineage.errors import BadInput
from lineage.workspace import workspace


def test_a_secret_is_made_once_and_readable_by_its_owner_only(home) -> None:
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(lambda _: home.secret("pseudonym.key"), range(32)))
    assert len(keys) == 1
    assert len(keys.pop()) == 32
    path = home.home / "secrets" / "pseudonym.key"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_a_fingerprint_tells_keys_apart_without_showing_them(home) -> None:
    first = home.fingerprint("a")
    assert first == home.fingerprint("a") != home.fingerprint("b")
    assert first not in home.secret("a").hex()


@pytest.mark.parametrize("name", ["what?", "a%20b", "100%25", os.fsdecode(b"caf\xe9")])
def test_a_place_where_mlflow_cannot_work_is_refused(tmp_path, monkeypatch, name: str) -> None:
    """MLflow would try for minutes, or put its database beside the workspace."""
    monkeypatch.setenv("LIGHTBOX_HOME", str(tmp_path / name / "home"))
    with pytest.raises(BadInput, match="LIGHTBOX_HOME names another place") as refused:
        workspace()
    assert str(refused.value).isprintable()
    monkeypatch.delenv("LIGHTBOX_HOME")
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / name)
    with pytest.raises(BadInput, match="LIGHTBOX_HOME names another place"):
        workspace()
