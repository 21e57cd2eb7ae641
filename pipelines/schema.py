"""JSON Schema of the settings files, for editors: they complete keys, show notes, mark typos.

Generated from the typed settings; the comments beside their fields become the notes.
"""

import ast
import inspect
import io
import json
import os
import re
import textwrap
import tokenize
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import core_schema

from lineage.code import ROOT

FOLDER = ROOT / "configs" / "schema"
KINDS = ("lifecycle", "kubeflow", "sagemaker")
SCALARS = ("boolean", "integer", "number")

# `${NAME}` stands in the file as text, whatever its value is read as later.
ENVIRONMENT = {"FromEnvironment": {"type": "string", "pattern": r"\$\{"}}


def schema(kind: str) -> dict[str, Any]:
    """The JSON Schema of one of the `KINDS` of settings files."""
    made: dict[str, Any] = _settings(kind).model_json_schema(schema_generator=_Noted)
    if kind == "lifecycle":
        # Labels are written once: `LifecycleConfig` copies them to where they are left out.
        made["required"].remove("retraining")
        del made["$defs"]["RetrainingConfig"]["required"]
    made = _or_environment(made)
    made["$defs"] = made.get("$defs", {}) | ENVIRONMENT
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | made


def as_text(kind: str) -> str:
    """The schema as it lies in configs/schema/."""
    return json.dumps(schema(kind), indent=1, ensure_ascii=False) + "\n"


def comment_for(path: Path, kind: str = "lifecycle") -> str:
    """The line that tells editors the schema of the settings file at `path`.

    In this repository it is a relative path, which holds in every clone; elsewhere an address on
    this machine, which helps here and harms nobody there.
    """
    target, folder = FOLDER / f"{kind}.schema.json", path.absolute().parent.resolve()
    where = target.as_uri()
    if folder.is_relative_to(ROOT):
        where = Path(os.path.relpath(target, folder)).as_posix()
    return f"# yaml-language-server: $schema={where}\n"


class _Noted(GenerateJsonSchema):
    """Pydantic's own generator; fields bear their comments instead of made-up titles."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def model_schema(self, schema: core_schema.ModelSchema) -> dict[str, Any]:
        made = super().model_schema(schema)
        for name, note in _comments(schema["cls"]).items():
            made["properties"][name]["description"] = note
        return made

    def tagged_union_schema(self, schema: core_schema.TaggedUnionSchema) -> dict[str, Any]:
        """Every branch must say which it is: pydantic demands it, JSON Schema has to be told."""
        made = super().tagged_union_schema(schema)
        made["required"] = [schema["discriminator"]]
        return made


def _settings(kind: str) -> type[BaseModel]:
    if kind == "kubeflow":
        from pipelines.backends.kubeflow.settings import KubeflowSettings

        return KubeflowSettings
    if kind == "sagemaker":
        from pipelines.backends.sagemaker.settings import SageMakerSettings

        return SageMakerSettings
    from pipelines.config import LifecycleConfig

    return LifecycleConfig


def _comments(model: type[BaseModel]) -> dict[str, str]:
    """What is said of each field: in the docstring's Args, right above it, beside it."""
    args = re.findall(r"^ +(\w+): (.*(?:\n {8}.*)*)", inspect.getdoc(model) or "", re.MULTILINE)
    found = {name: " ".join(note.split()) for name, note in args if name in model.model_fields}
    source = textwrap.dedent(inspect.getsource(model))
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = {t.start[0]: t for t in tokens if t.type == tokenize.COMMENT}
    [definition] = ast.parse(source).body
    assert isinstance(definition, ast.ClassDef)
    for field in definition.body:
        if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
            continue
        above = field.lineno
        while (token := comments.get(above - 1)) and token.line.lstrip().startswith("#"):
            above -= 1
        near = [comments.get(line) for line in (*range(above, field.lineno), field.end_lineno)]
        if note := " ".join(token.string.lstrip("# ") for token in near if token):
            found[field.target.id] = note
    return found


def _or_environment(node: Any) -> Any:
    """Let `${NAME}` stand wherever a number, a switch, or a text of a certain form is wanted."""
    if isinstance(node, list):
        return [_or_environment(item) for item in node]
    if not isinstance(node, dict):
        return node
    formed = node.keys() & {"enum", "pattern"}
    if node.get("type") in SCALARS or (node.get("type") == "string" and formed):
        outside = {key: node[key] for key in ("description", "default") if key in node}
        inside = {key: value for key, value in node.items() if key not in outside}
        return outside | {"anyOf": [inside, {"$ref": "#/$defs/FromEnvironment"}]}
    return {key: _or_environment(value) for key, value in node.items()}
