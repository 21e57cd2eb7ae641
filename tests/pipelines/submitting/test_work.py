import subprocess
from pathlib import Path

import pytest

from lineage.errors import BadInput
from pipelines.submitting import work
from pipelines.submitting.work import read_work


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=A", "-c", "user.email=a@example.org")
    done = subprocess.run(
        ["git", "-C", str(folder), *who, *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    (folder / "configs").mkdir(parents=True)
    git(folder, "init", "--quiet")
    (folder / "a.py").write_text("one = 1\n")
    (folder / "crlf.py").write_bytes(b"two = 2\r\n")
    (folder / "labels.csv").write_text("a,b\n")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "first")
    return folder


def test_committed_work_is_its_commit(repository) -> None:
    found = read_work(repository / "configs", dirty=False)
    assert found.commit == git(repository, "rev-parse", "HEAD")
    assert (found.patch, found.patch_digest) == (b"", "")


@pytest.mark.parametrize("name", ["a.py", "new.py", "configs/new.yaml", "Dockerfile"])
def test_uncommitted_work_is_refused_by_name(repository, name) -> None:
    (repository / name).write_text("x: 2\n")
    with pytest.raises(BadInput, match=f"uncommitted work: {name}; commit it, or say --dirty"):
        read_work(repository, dirty=False)


def test_staged_and_deleted_work_is_uncommitted_too(repository) -> None:
    (repository / "a.py").unlink()
    with pytest.raises(BadInput, match=r"uncommitted work: a\.py"):
        read_work(repository, dirty=False)
    git(repository, "add", "--all")
    with pytest.raises(BadInput, match=r"uncommitted work: a\.py"):
        read_work(repository, dirty=False)


def test_new_data_is_no_work_and_never_in_a_patch(repository) -> None:
    (repository / "scans.csv").write_text("DOE^JOHN\n")
    (repository / "scan.dcm").write_bytes(b"DOE^JOHN")
    assert read_work(repository, dirty=False).patch == b""
    (repository / "a.py").write_text("one = 3\n")
    assert b"DOE" not in read_work(repository, dirty=True).patch


def test_changed_data_does_not_travel(repository) -> None:
    (repository / "labels.csv").write_text("DOE^JOHN,b\n")
    with pytest.raises(BadInput, match="1 changed files are data") as caught:
        read_work(repository, dirty=True)
    assert "DOE" not in str(caught.value)


def test_a_patch_makes_the_same_files_of_the_same_commit(repository, tmp_path) -> None:
    (repository / "a.py").write_text("one = 3  # ü\n")
    (repository / "crlf.py").write_bytes(b"two = 3\r\nlatin = '\xe9'\r\n")
    (repository / "configs" / "neu ä.yaml").write_text("new: true\n")
    found = read_work(repository / "configs", dirty=True)
    assert len(found.patch_digest) == 64

    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", str(repository), str(clone))
    git(clone, "checkout", "--quiet", found.commit)
    (tmp_path / "work.patch").write_bytes(found.patch)
    git(clone, "apply", str(tmp_path / "work.patch"))
    for path in repository.rglob("*"):
        if path.is_file() and ".git" not in path.parts:
            assert (clone / path.relative_to(repository)).read_bytes() == path.read_bytes()
    assert read_work(clone, dirty=True).patch_digest == found.patch_digest


def test_a_patch_is_bounded(repository, monkeypatch) -> None:
    monkeypatch.setattr(work, "MOST_BYTES", 1 << 20)
    (repository / "new.py").write_text("x = 1\n" * 200_000)
    with pytest.raises(BadInput, match="larger than 1 MiB"):
        read_work(repository, dirty=True)


def test_without_a_repository(tmp_path) -> None:
    with pytest.raises(BadInput, match="no git repository"):
        read_work(tmp_path, dirty=False)
    assert read_work(tmp_path, dirty=True).commit == ""


def test_a_repository_without_a_commit(tmp_path) -> None:
    git(tmp_path, "init", "--quiet")
    with pytest.raises(BadInput, match="no commit yet"):
        read_work(tmp_path, dirty=True)
