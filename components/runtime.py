"""How a component runs, wherever it runs: the same few lines under every backend."""

import argparse
import json
import logging
import os
import shutil
import signal
import sys
import tarfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from components import step_log
from components.contract import Component
from components.shared_state import shared_state
from lineage.code import code_digest, environment
from lineage.digest import tree_digest
from lineage.errors import BadInput, StepFailed
from lineage.record import leave_record
from lineage.workspace import secret_variable, workspace
from registry import audit_log

Directories = dict[str, Path]
T = TypeVar("T")

SAGEMAKER, KUBERNETES = Path("/opt/ml/output"), Path("/dev/termination-log")

log = logging.getLogger(__name__)


def execute(
    component: Component,
    config: BaseModel,
    inputs: Directories,
    outputs: Directories,
    input_digests: dict[str, str] | None = None,
) -> tuple[dict[str, Any], dict[str, str]]:
    """Run a component and sign what it made.

    Returns:
        The values it reported, and the digest of each output directory.
    """
    for path in outputs.values():
        path.mkdir(parents=True, exist_ok=True)
    digests = input_digests or {name: tree_digest(path) for name, path in inputs.items()}
    reported = component(config, **inputs, **outputs)
    values: dict[str, Any] = reported._asdict() if reported is not None else {}
    made = {
        name: leave_record(
            path,
            step=component.name,
            code=code_digest(component.module),
            config=config.model_dump(mode="json"),
            environment=environment(),
            inputs=digests,
        )
        for name, path in outputs.items()
    }
    return values, made


def main(component: Component, argv: Sequence[str] | None = None) -> None:
    """`python -m components NAME --config … --input a=… --output b=… --value c=…`

    What the step says goes to standard error, without the text of libraries where it reads
    identities. Ends the process with the exit code of a failed step (1) or of bad input (2).
    """
    args = _arguments(component, argv)
    outputs = dict(args.output)
    try:
        # An engine that stops a job says so first: what was done so far is written back.
        signal.signal(signal.SIGTERM, _stopped)
        with step_log.captured(None, identities=component.identities):
            _read_secrets(component)
            home = workspace().home
            minutes = component.resources.timeout_minutes
            with (
                shared_state(component.state, home, minutes) as write_back,
                audit_log.kept_by(write_back),
            ):
                inputs = {name: _unpacked(name, path) for name, path in args.input}
                config = _config(component, args.config)
                values, _ = tried(
                    component, lambda: execute(component, config, inputs, _emptied(outputs))
                )
            # Only what is whole is told: an engine takes a value for the end of its step.
            texts = {name: as_text(value) for name, value in values.items()}
            whole = json.dumps(values, allow_nan=False)
            for name, path in args.value:
                _write(path, texts[name])
            if args.values_json:
                _write(args.values_json, whole)
            if args.executor_input:
                from components.kubeflow_pages import leave_pages

                leave_pages(args.executor_input, outputs, values)
    except BaseException as error:  # the log has said what it is; its text may quote data
        if isinstance(error, SystemExit) and not error.code and component.trains:
            raise  # a machine that only helped another one
        ours = isinstance(error, (BadInput, StepFailed))
        _tell_engine(str(error) if ours else f"{component.name} ended with {type(error).__name__}")
        sys.exit(2 if isinstance(error, BadInput) else 1)


def _stopped(*_: object) -> None:
    raise StepFailed("the engine stopped it")


def tried(component: Component, attempt: Callable[[], T]) -> T:
    """Execute, and again as often as the component allows; a "no" is not tried again."""
    for _ in range(component.retries):
        try:
            return attempt()
        except (BadInput, StepFailed):
            raise
        except Exception as error:  # its text may quote data
            log.warning("%s ended with %s; trying again", component.name, type(error).__name__)
    return attempt()


def _emptied(outputs: Directories) -> Directories:
    """What an attempt that broke off has left is no part of the next one's result."""
    for folder in outputs.values():
        for path in folder.iterdir() if folder.is_dir() else ():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    return outputs


def _tell_engine(sentence: str) -> None:
    """Leave the reason where SageMaker and Kubernetes look for it, to show it in their pages."""
    told = [SAGEMAKER / "message"] if SAGEMAKER.is_dir() else []
    told += [KUBERNETES] if KUBERNETES.is_file() else []
    for place in told:
        with suppress(OSError):  # the log has it as well
            place.write_text(sentence[:1024], errors="backslashreplace")


def _arguments(component: Component, argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"python -m components {component.entry}")
    parser.add_argument("--config", required=True, help="JSON text, or the path of a JSON file")
    for flag in ("--input", "--output", "--value"):
        parser.add_argument(
            flag, action="append", default=[], type=_named_path, metavar="NAME=PATH"
        )
    parser.add_argument("--values-json", type=Path, help="write all values to one file as well")
    parser.add_argument("--executor-input", help="Kubeflow's, to leave what its pages draw")
    args = parser.parse_args(argv)
    for flag, given, known in (
        ("--input", args.input, component.inputs),
        ("--output", args.output, component.outputs),
    ):
        if dict(given).keys() != set(known):
            parser.error(f"{component.name} wants {flag} for each of {list(known)}")
    if unknown := dict(args.value).keys() - component.values.keys():
        parser.error(f"{component.name} reports {list(component.values)}, not {sorted(unknown)}")
    return args


def _config(component: Component, given: str) -> BaseModel:
    try:
        text = given if given.startswith("{") else Path(given).read_text()
    except OSError as error:
        raise BadInput(f"--config: cannot be read ({error.strerror})") from error
    try:
        return component.config_type.model_validate_json(text)
    except ValidationError as error:
        places = [".".join(map(str, e["loc"])) + ": " + e["msg"] for e in error.errors()]
        raise BadInput(f"--config: {'; '.join(places)}") from error


def _read_secrets(component: Component) -> None:
    """A job on SageMaker is told where a secret lies, never the secret."""
    for name in component.secrets:
        variable = secret_variable(name)
        if not os.environ.get(variable, "").startswith("arn:"):
            continue
        import boto3
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            found = boto3.client("secretsmanager").get_secret_value(SecretId=os.environ[variable])
            os.environ[variable] = found["SecretString"].strip()
        except (BotoCoreError, ClientError, KeyError) as error:
            what = type(error).__name__
            raise StepFailed(f"the secret that {variable} names cannot be read ({what})") from error


def as_text(value: Any) -> str:
    """One value, one file: a text is written as it is, or an engine would show its quotes."""
    return value if isinstance(value, str) else json.dumps(value)


def _unpacked(name: str, path: Path) -> Path:
    """SageMaker hands a trained model on as one model.tar.gz; everyone else as a directory."""
    if not path.exists():
        raise BadInput(f"--input {name}: nothing lies there")
    archive = path / "model.tar.gz"
    if not archive.exists():
        return path
    unpacked = Path(mkdtemp()) / path.name
    with tarfile.open(archive) as tar:
        tar.extractall(unpacked, filter="data")
    return unpacked


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _named_path(text: str) -> tuple[str, Path]:
    name, separator, path = text.partition("=")
    if not separator or not path:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=PATH")
    return name, Path(path)
