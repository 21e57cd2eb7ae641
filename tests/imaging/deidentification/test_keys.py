"""Where the pseudonym key comes from: the workspace, the environment, a file, or AWS KMS."""

import base64
import logging
from pathlib import Path

import pytest

from lineage.errors import BadInput
from lineage.workspace import Workspace

NAME, VARIABLE = "pseudonym.key", "LIGHTBOX_SECRET_PSEUDONYM_KEY"
KEY = "5e" * 32


@pytest.fixture
def place(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "home")


def kept(path: Path, text: str, mode: int = 0o600) -> str:
    path.write_text(text)
    path.chmod(mode)
    return str(path)


def test_a_file_that_the_environment_names(
    place: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"{VARIABLE}_FILE", kept(tmp_path / "key", f"{KEY}\n", 0o440))
    assert place.has_secret(NAME)
    assert place.secret(NAME) == bytes.fromhex(KEY)
    assert not (place.home / "secrets").exists()  # none is made beside it


def test_an_empty_variable_gives_no_key(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """A compose file sets it so where nothing stands behind it: one is made, and spoken of."""
    monkeypatch.setenv(VARIABLE, "")
    monkeypatch.setenv(f"{VARIABLE}_FILE", "")
    assert not place.has_secret(NAME)
    place.secret(NAME)
    assert place.has_secret(NAME)


@pytest.mark.parametrize("mode", [0o644, 0o602, 0o601])
def test_a_file_for_everybody_is_refused(
    place: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    monkeypatch.setenv(f"{VARIABLE}_FILE", kept(tmp_path / "key", KEY, mode))
    with pytest.raises(BadInput, match="everybody can read") as caught:
        place.secret(NAME)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("content", ["", "hunter2", KEY[:-1], KEY.upper(), "kms:?", "\xff"])
def test_what_is_no_key_is_refused_and_not_quoted(
    place: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    path = tmp_path / "key"
    path.write_bytes(content.encode("latin-1"))
    path.chmod(0o600)
    monkeypatch.setenv(f"{VARIABLE}_FILE", str(path))
    with pytest.raises(BadInput, match=f"{VARIABLE}_FILE: ") as caught:
        place.secret(NAME)
    assert not content or content not in str(caught.value)
    assert not (place.home / "secrets").exists()


def test_a_file_that_is_not_there(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{VARIABLE}_FILE", "/nowhere/key")
    with pytest.raises(BadInput, match="cannot be read"):
        place.secret(NAME)


def test_two_keys_are_one_too_many(
    place: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, KEY)
    monkeypatch.setenv(f"{VARIABLE}_FILE", kept(tmp_path / "key", KEY))
    with pytest.raises(BadInput, match="keep one"):
        place.secret(NAME)


def encrypted(plain: bytes) -> str:
    import boto3

    kms = boto3.client("kms")
    key = kms.create_key()["KeyMetadata"]["KeyId"]
    return base64.b64encode(kms.encrypt(KeyId=key, Plaintext=plain)["CiphertextBlob"]).decode()


@pytest.mark.usefixtures("aws")
def test_a_key_out_of_kms(
    place: Workspace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    given = f"kms:{encrypted(bytes.fromhex(KEY))}"
    monkeypatch.setenv(VARIABLE, given)
    assert place.secret(NAME) == bytes.fromhex(KEY)
    in_file = Workspace(tmp_path / "other")
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setenv(f"{VARIABLE}_FILE", kept(tmp_path / "key", given))
    assert in_file.secret(NAME) == bytes.fromhex(KEY)
    assert place.fingerprint(NAME) == in_file.fingerprint(NAME)
    assert KEY not in caplog.text


@pytest.mark.usefixtures("aws")
def test_what_kms_does_not_decrypt_is_refused(
    place: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    for given, told in (
        (base64.b64encode(b"nothing of ours").decode(), "KMS does not decrypt it"),
        (encrypted(b"short"), "to 5 bytes"),
        ("not base64!", "not Base64"),
    ):
        monkeypatch.setenv(VARIABLE, f"kms:{given}")
        with pytest.raises(BadInput, match=told) as caught:
            place.secret(NAME)
        assert given not in str(caught.value)
