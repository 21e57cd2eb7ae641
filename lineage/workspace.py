"""Where everything of one workspace lies: `.lightbox/` here, or `LIGHTBOX_HOME`."""

import base64
import os
import re
import secrets
import stat
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import mkstemp

from lineage.digest import keyed_digest
from lineage.errors import BadInput


@dataclass(frozen=True)
class Workspace:
    """The folder that holds all state of one user or project on one machine."""

    home: Path

    @property
    def store(self) -> Path:
        """Content-addressed outputs of steps."""
        return self.home / "store"

    @property
    def runs(self) -> Path:
        """One folder per run: what ran, what was reused, how it ended."""
        return self.home / "runs"

    @property
    def mlflow_uri(self) -> str:
        """Tracking and registry address; a server's URL in `MLFLOW_TRACKING_URI` wins."""
        return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{self.home / 'mlflow.db'}"

    @property
    def mlflow_artifacts(self) -> Path:
        """Files of MLflow's runs and models."""
        return self.home / "mlartifacts"

    @property
    def audit_log(self) -> Path:
        """The append-only record of who did what to which model, and why."""
        return self.home / "audit.db"

    def endpoint(self, model: str) -> Path:
        """A registered model's endpoint: state, log, captured traffic. Each has its own."""
        return self.home / "endpoints" / model

    @property
    def requests(self) -> Path:
        """Requests for a new run, one JSON file each."""
        return self.home / "requests"

    @property
    def ledgers(self) -> Path:
        """Decisions that outlive a run: split assignments, openings of the sealed test split."""
        return self.home / "ledgers"

    def secret(self, name: str) -> bytes:
        """Read a 32-byte secret, made at first use and readable by its owner only.

        Elsewhere `LIGHTBOX_SECRET_<NAME>`, such as `LIGHTBOX_SECRET_PSEUDONYM_KEY`, gives it as 64
        hex digits, or as `kms:` and the Base64 of what AWS KMS has encrypted; or
        `LIGHTBOX_SECRET_<NAME>_FILE` names a file that holds either.

        Raises:
            BadInput: These hold something else. Making a new key instead would give every patient
                another pseudonym without a word.
        """
        if (given := given_secret(secret_variable(name))) is not None:
            return given
        path = self.home / "secrets" / name
        if not path.exists():
            self.keep_secret(name, secrets.token_hex(32))
        return bytes.fromhex(path.read_text().strip())

    def keep_secret(self, name: str, hexadecimal: str) -> None:
        """Put a secret where only its owner reads it, unless there is one under that name."""
        path = self.home / "secrets" / name
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor, draft = mkstemp(dir=path.parent)  # mode 0600
        with os.fdopen(descriptor, "w") as file:
            file.write(hexadecimal)
        # A link never replaces a key that another process has just made.
        with suppress(FileExistsError):
            os.link(draft, path)
        Path(draft).unlink()

    def has_secret(self, name: str) -> bool:
        """Whether it exists already; `secret` would make it."""
        variable = secret_variable(name)
        given = os.environ.get(variable) or os.environ.get(f"{variable}_FILE")
        return bool(given) or (self.home / "secrets" / name).exists()

    def fingerprint(self, name: str) -> str:
        """Tell two keys apart without telling anything of either."""
        return keyed_digest(self.secret(name), "fingerprint", name)[:16]


def secret_variable(secret: str) -> str:
    """The environment variable in which a cluster gives a workspace secret."""
    return f"LIGHTBOX_SECRET_{secret.replace('.', '_').upper()}"


def given_secret(variable: str) -> bytes | None:
    """The secret that the environment gives in a variable, or in a file that it names; or None.

    Raises:
        BadInput: What is given is no secret.
    """
    given = _given(variable)
    return _as_bytes(*given) if given else None


def _given(variable: str) -> tuple[str, str] | None:
    """A secret that the environment gives, after the variable that names it or its file."""
    given, file = os.environ.get(variable), os.environ.get(f"{variable}_FILE")
    if given and file:
        raise BadInput(f"{variable} and {variable}_FILE are both set: keep one")
    if not file:
        return (variable, given) if given else None
    variable = f"{variable}_FILE"
    return variable, _private_text(variable, Path(file))


def secret_in_file(setting: str, file: Path) -> bytes:
    """A secret of 32 bytes in a file that not everybody can read.

    Args:
        setting: What named the file, for messages.
        file: Holds 64 hex digits, or `kms:` and what AWS KMS has encrypted.

    Raises:
        BadInput: It holds something else, cannot be read, or everybody can read it.
    """
    return _as_bytes(setting, _private_text(setting, file))


def _private_text(setting: str, file: Path) -> str:
    try:
        with file.open() as opened:  # asked and read as one and the same file
            if os.fstat(opened.fileno()).st_mode & stat.S_IRWXO:
                raise BadInput(f"{setting}: everybody can read that file; take it from others")
            return opened.read().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{setting}: cannot be read ({type(error).__name__})") from None


def _as_bytes(variable: str, given: str) -> bytes:
    if given.startswith("kms:"):
        return _decrypted(variable, given.removeprefix("kms:"))
    if not re.fullmatch(r"[0-9a-f]{64}", given):
        raise BadInput(f"{variable}: expected the secret itself, as 64 hex digits")
    return bytes.fromhex(given)


@cache  # one call to KMS for a process
def _decrypted(variable: str, encrypted: str) -> bytes:
    """32 bytes out of AWS KMS, such as its GenerateDataKey has made."""
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        blob = base64.b64decode(encrypted, validate=True)
        plain = boto3.client("kms").decrypt(CiphertextBlob=blob)["Plaintext"]
    except ValueError:
        raise BadInput(f"{variable}: what follows kms: is not Base64") from None
    except (BotoCoreError, ClientError) as error:
        raise BadInput(f"{variable}: KMS does not decrypt it ({_kind(error)})") from None
    if len(plain) != 32:
        raise BadInput(f"{variable}: KMS decrypts it to {len(plain)} bytes, and a key has 32")
    return bytes(plain)


def _kind(error: Exception) -> str:
    code = getattr(error, "response", {}).get("Error", {}).get("Code")
    return str(code or type(error).__name__)


def workspace() -> Workspace:
    """The workspace in force: `LIGHTBOX_HOME`, or `.lightbox/` under the current folder.

    Raises:
        BadInput: A file lies there, or MLflow could not open its database there.
    """
    home = Path(os.environ.get("LIGHTBOX_HOME") or ".lightbox").absolute()
    # In the address of a database these mean something else than themselves.
    if re.search(r"\?|%[0-9A-Fa-f]{2}|[\udc80-\udcff]", str(home)):
        raise BadInput(
            f"{str(home)!r}: MLflow keeps no database below a folder named with ?, a % code, or "
            "bytes that are not UTF-8; LIGHTBOX_HOME names another place for the workspace"
        )
    if home.is_file():
        raise BadInput(
            f"{home} is a file, where the workspace should be; LIGHTBOX_HOME names another"
        )
    return Workspace(home)
