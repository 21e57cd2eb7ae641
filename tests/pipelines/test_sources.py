import json
import subprocess
import sys
from pathlib import Path

import boto3
import pytest
import yaml
from click.testing import CliRunner

from imaging.phantom import SCANNERS, write_cohort
from lineage.errors import BadInput, StepFailed
from lineage.known import Known
from pipelines.cli import cli
from pipelines.graph import Source
from pipelines.sources import resolve

ROOT = Path(__file__).resolve().parents[2]


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


@pytest.fixture
def bucket(aws: str):
    found = boto3.resource("s3").Bucket("scans")
    found.create()
    return found


def test_a_remote_source_is_copied_once_and_then_kept_up_to_date(home, bucket, capsys) -> None:
    bucket.put_object(Key="chest/a.dcm", Body=b"1")
    bucket.put_object(Key="chest/b.dcm", Body=b"2")
    source = Source("scans", "s3://scans/chest")
    folder = resolve(source, home)
    assert {path.name for path in folder.iterdir()} == {"a.dcm", "b.dcm"}
    assert folder.is_relative_to(home.home / "incoming")
    named = Known(home.store / "known").tree_digest(folder)
    assert resolve(source, home) == folder
    assert Known(home.store / "known").tree_digest(folder) == named
    assert capsys.readouterr().err == ""
    bucket.Object("chest/a.dcm").delete()
    assert [path.name for path in resolve(source, home).iterdir()] == ["b.dcm"]
    assert "scans: 1 files are gone at their source" in capsys.readouterr().err
    for private in (folder, folder.parent):
        assert private.stat().st_mode & 0o077 == 0


def test_labels_may_be_one_object(home, bucket) -> None:
    bucket.put_object(Key="labels.csv", Body=b"a,b")
    assert resolve(Source("labels", "s3://scans/labels.csv"), home).read_bytes() == b"a,b"


def test_who_only_looks_fetches_nothing(home, bucket) -> None:
    bucket.put_object(Key="chest/a.dcm", Body=b"1")
    source = Source("scans", "s3://scans/chest")
    with pytest.raises(BadInput, match=r"sources\.scans: nothing was fetched from there yet"):
        resolve(source, home, fetch=False)
    assert not home.home.exists()
    folder = resolve(source, home)
    bucket.put_object(Key="chest/b.dcm", Body=b"2")
    assert resolve(source, home, fetch=False) == folder
    assert [path.name for path in folder.iterdir()] == ["a.dcm"]


def test_a_source_that_cannot_be_reached_says_what_is_here(home, bucket, monkeypatch) -> None:
    source = Source("scans", "s3://scans/chest")
    with pytest.raises(BadInput, match=r"^sources\.scans: nothing lies at s3://scans/chest;"):
        resolve(source, home)
    assert not home.home.exists()
    bucket.put_object(Key="chest/a.dcm", Body=b"1")
    folder = resolve(source, home)
    monkeypatch.setattr("random.uniform", lambda low, high: 0.01)
    monkeypatch.setattr("imaging.incoming.mirror.TRIES", 2)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StepFailed, match=rf"what was fetched before lies in {folder}"):
        resolve(source, home)


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("gs://scans/chest", "gs://… is no address that scans are read from"),
        ("dicomweb+http://127.0.0.1/rs?PatientID=MRN-7", "the query's PatientID would stand in"),
        ("dicomweb+https://me:hidden@pacs.example.org/rs", "a password in an address"),
    ],
)
def test_addresses_that_a_run_does_not_take(home, uri: str, told: str) -> None:
    for fetch in (True, False):
        with pytest.raises(BadInput, match=rf"^sources\.scans: .*{told}") as refused:
            resolve(Source("scans", uri), home, fetch=fetch)
        assert "MRN-7" not in str(refused.value)
        assert "hidden" not in str(refused.value)


def test_two_at_once_fetch_once(home, bucket) -> None:
    for number in range(40):
        bucket.put_object(Key=f"chest/{number}", Body=b"%d" % number)
    code = (
        "from lineage.workspace import workspace\n"
        "from pipelines.graph import Source\n"
        "from pipelines.sources import resolve\n"
        "print(resolve(Source('scans', 's3://scans/chest'), workspace()))"
    )
    both = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    places = {process.communicate(timeout=120)[0].strip() for process in both}
    assert [process.returncode for process in both] == [0, 0]
    (place,) = places
    assert {path.read_bytes() for path in Path(place).iterdir()} == {b"%d" % n for n in range(40)}


def test_the_plan_of_a_run_fetches_nothing(home, bucket, tmp_path) -> None:
    scans = tmp_path / "cohort" / "scans"
    labels = write_cohort(scans, seed=3, patients=2, scanners=SCANNERS)
    for number, path in enumerate(path for path in scans.rglob("*") if path.is_file()):
        bucket.upload_file(str(path), f"chest/{number}")
    settings = yaml.safe_load((ROOT / "configs" / "phantom.yaml").read_text())
    settings["sources"] = {"scans": "s3://scans/chest", "labels": str(labels)}
    (tmp_path / "task.yaml").write_text(yaml.safe_dump(settings))
    words = ["plan", str(tmp_path / "task.yaml"), "--json"]
    before = CliRunner().invoke(cli, words, standalone_mode=False)
    assert "nothing was fetched from there yet" in str(before.exception)
    assert not (home.home / "incoming").exists()
    folder = resolve(Source("scans", "s3://scans/chest"), home)
    names = {path.name for path in folder.iterdir()}
    bucket.put_object(Key="chest/later", Body=b"1")
    planned = CliRunner().invoke(cli, words, standalone_mode=False)
    assert json.loads(planned.output)[0]["step"] == "ingest"
    assert {path.name for path in folder.iterdir()} == names
