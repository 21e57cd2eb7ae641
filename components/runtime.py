"""How a component runs, wherever it runs: the same few lines under every backend."""

import argparse
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from pydantic import BaseModel, ValidationError

from components.contract import Component
from lineage.code import code_digest, environment
from lineage.digest import tree_digest
from lineage.record import leave_record

Directories = dict[str, Path]


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
    """`python -m components.<name> --config … --input a=… --output b=… --value c=…`"""
    parser = argparse.ArgumentParser(prog=f"python -m components.{component.name}")
    parser.add_argument("--config", required=True, help="JSON text, or the path of a JSON file")
    for flag in ("--input", "--output", "--value"):
        parser.add_argument(
            flag, action="append", default=[], type=_named_path, metavar="NAME=PATH"
        )
    parser.add_argument("--values-json", type=Path, help="write all values to one file as well")
    args = parser.parse_args(argv)

    inputs, outputs, values_to = dict(args.input), dict(args.output), dict(args.value)
    for flag, given, known in (
        ("--input", inputs, component.inputs),
        ("--output", outputs, component.outputs),
    ):
        if given.keys() != set(known):
            parser.error(f"{component.name} wants {flag} for each of {list(known)}")
    if unknown := values_to.keys() - component.values.keys():
        parser.error(f"{component.name} reports {list(component.values)}, not {sorted(unknown)}")
    text = args.config if args.config.startswith("{") else Path(args.config).read_text()
    try:
        config = component.config_type.model_validate_json(text)
    except ValidationError as error:
        places = [".".join(map(str, e["loc"])) + ": " + e["msg"] for e in error.errors()]
        parser.error(f"--config: {'; '.join(places)}")

    unpacked = {name: _unpacked(path) for name, path in inputs.items()}
    values, _ = execute(component, config, unpacked, outputs)
    for name, path in values_to.items():
        # One value, one file: a text is written as it is, or an engine would show its quotes.
        _write(path, values[name] if isinstance(values[name], str) else json.dumps(values[name]))
    if args.values_json:
        _write(args.values_json, json.dumps(values))


def _unpacked(path: Path) -> Path:
    """SageMaker hands a trained model on as one model.tar.gz; everyone else as a directory."""
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
