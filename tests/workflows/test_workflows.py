"""The workflows: their schemas, zizmor's rules, and what their scripts really do."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from pipelines.cli import cli

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
CI, TRAIN, PROMOTE = (f".github/workflows/{name}.yml" for name in ("ci", "train", "promote"))
CHECKOUT = "uses: actions/checkout@de0fac2e4500dabe0009e67214ff5f5447ce83dd # v6.0.2"


def scan(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(ROOT / ".ci" / "scan_workflows"), str(folder)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.usefixtures("with_scanners")
def test_workflows_are_as_their_schemas_have_them_and_safe() -> None:
    scanned = scan(ROOT)
    assert scanned.returncode == 0, scanned.stdout + scanned.stderr


@pytest.mark.usefixtures("with_scanners")
@pytest.mark.parametrize(
    ("file", "good", "bad", "rule"),
    [
        (CI, CHECKOUT, "uses: actions/checkout@v6", "unpinned-uses"),
        (TRAIN, '-- "$CONFIG"', "-- ${{ inputs.config }}", "template-injection"),
        (TRAIN, "permissions: {}", "permissions: write-all", "excessive-permissions"),
        (PROMOTE, "persist-credentials: false", "fetch-depth: 1", "artipacked"),
        (CI, "  pull_request:", "  pull_request_target:", "dangerous-triggers"),
        (CI, "timeout-minutes: 90", "timeout-mins: 90", "timeout-mins"),
        (".github/actions/install/action.yml", "using: composite", "uses: composite", "using"),
        (".gitlab-ci.yml", "resource_group: training # one", "resourcegroup: one # one", "train"),
        (".gitlab-ci.yml", "when: manual", "when: somebody", "manual"),
    ],
)
def test_a_weak_or_wrong_workflow_is_found(
    tmp_path: Path, file: str, good: str, bad: str, rule: str
) -> None:
    shutil.copytree(ROOT / ".github", tmp_path / ".github")
    shutil.copy(ROOT / ".gitlab-ci.yml", tmp_path)
    text = (tmp_path / file).read_text()
    assert good in text
    (tmp_path / file).write_text(text.replace(good, bad, 1))
    scanned = scan(tmp_path)
    assert scanned.returncode != 0
    assert rule in scanned.stdout + scanned.stderr


def jobs(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text())["jobs"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_only_jobs_that_enter_the_cloud_may_say_who_they_are(path: Path) -> None:
    for job in jobs(path).values():
        enters = any("configure-aws-credentials" in step.get("uses", "") for step in job["steps"])
        assert (job["permissions"].get("id-token") == "write") == enters
        assert {value for key, value in job["permissions"].items() if key != "id-token"} == {"read"}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_scripts_hold_no_expression(path: Path) -> None:
    for job in jobs(path).values():
        for step in job["steps"]:
            assert "${{" not in step.get("run", "")


def test_an_action_has_one_pin_everywhere() -> None:
    files = [*WORKFLOWS, ROOT / ".github" / "actions" / "install" / "action.yml"]
    uses = {
        (match[1], match[2])
        for file in files
        for match in re.finditer(
            r"uses: ([\w./-]+)@([0-9a-f]{40} # v[\d.]+)$", file.read_text(), re.M
        )
    }
    assert len(uses) == len({action for action, _ in uses}) == 4


def step(path: str, job: str, name: str) -> str:
    found = jobs(ROOT / path)[job]["steps"]
    return next(step["run"] for step in found if step.get("name") == name)


@pytest.mark.parametrize("code", range(6))
def test_a_run_s_exit_code_reaches_the_step_that_is_named_after_it(
    tmp_path: Path, code: int
) -> None:
    command = tmp_path / ".venv" / "bin" / "lightbox"
    command.parent.mkdir(parents=True)
    command.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > arguments\nexit {code}\n')
    command.chmod(0o755)
    hostile = 'configs/$(touch hacked)"; touch hacked; ".yaml'
    environment = {
        "CONFIG": hostile,
        "ENGINE": "sagemaker",
        "PLACE": "place.yaml",
        "AGAIN": "",
        "REQUESTED": "--if-requested",
        "GITHUB_OUTPUT": str(tmp_path / "output"),
        "PATH": "/usr/bin:/bin",
    }
    run = step(TRAIN, "train", "Submit and wait")
    # As GitHub runs it.
    subprocess.run(["bash", "-e", "-c", run], cwd=tmp_path, env=environment, check=True)
    assert (tmp_path / "output").read_text() == f"code={code}\n"
    arguments = (tmp_path / "arguments").read_text().splitlines()
    assert arguments[-2:] == ["--", hostile] and "--if-requested" in arguments
    assert not (tmp_path / "hacked").exists()

    named = [
        step
        for step in jobs(ROOT / TRAIN)["train"]["steps"]
        if f"== '{code}'" in step.get("if", "")
    ]
    assert len(named) == (code != 0)
    if code not in (0, 4):  # waiting for a person is no failure of the run
        assert named[0]["run"] == f"exit {code}"


def reviewed(*reviews: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    command = ["python3", str(ROOT / ".github" / "approver.py"), "release"]
    return subprocess.run(command, input=json.dumps(reviews), capture_output=True, text=True)


# As GitHub's documentation of the endpoint has it, shortened.
REVIEW = {
    "environments": [{"id": 161088068, "name": "release"}],
    "state": "approved",
    "user": {"login": "octocat", "id": 1},
    "comment": "figures\nreviewed",
}


def test_the_reviewer_is_who_approved() -> None:
    assert reviewed(REVIEW).stdout == "who=octocat\nwhy=figures reviewed\n"
    refused = REVIEW | {"state": "rejected", "user": {"login": "hubot"}}
    assert "who=octocat" in reviewed(refused, REVIEW).stdout
    assert "without a comment" in reviewed(REVIEW | {"comment": ""}).stdout


@pytest.mark.parametrize(
    ("reviews", "why"),
    [
        ((), "no required reviewers"),
        ((REVIEW | {"state": "rejected"},), "no required reviewers"),
        ((REVIEW | {"environments": [{"name": "training"}]},), "no required reviewers"),
        ((REVIEW, REVIEW), "more than once"),
    ],
)
def test_without_one_reviewer_nothing_is_approved(
    reviews: tuple[dict[str, Any], ...], why: str
) -> None:
    answered = reviewed(*reviews)
    assert answered.returncode == 1 and why in answered.stderr and not answered.stdout


def scripts(node: Any) -> list[str]:
    """Each script of a workflow, a pipeline or a template."""
    if isinstance(node, str):
        return [node] if "bin/lightbox" in node else []
    if isinstance(node, list):
        return [found for item in node for found in scripts(item)]
    if isinstance(node, dict):
        return [found for item in node.values() for found in scripts(item)]
    return []


class Template(yaml.SafeLoader):
    """CloudFormation's YAML: `!Ref` and the like say nothing here."""


Template.add_multi_constructor("!", lambda loader, suffix, node: None)
CALLERS = [*WORKFLOWS, ROOT / ".gitlab-ci.yml", ROOT / "configs" / "aws" / "codepipeline.yaml"]


@pytest.mark.parametrize("path", CALLERS, ids=lambda path: path.name)
def test_commands_and_options_that_are_used_exist(path: Path) -> None:
    text = "\n".join(scripts(yaml.load(path.read_text(), Template)))
    calls = re.findall(r"bin/lightbox ([a-z]+)((?:[^\n]|\\\n)*)", text)
    assert calls
    for name, rest in calls:
        command = cli.commands[name]
        known = {option for one in command.params for option in [*one.opts, *one.secondary_opts]}
        used = set(re.findall(r"(?<![\w\"$:+-])(--[a-z-]+)", rest))
        assert isinstance(command, click.Command) and used <= known, (name, used - known)


def test_stages_inside_aws_are_build_specifications() -> None:
    template = yaml.load((ROOT / "configs/aws/codepipeline.yaml").read_text(), Template)
    projects = [
        resource["Properties"]
        for resource in template["Resources"].values()
        if resource["Type"] == "AWS::CodeBuild::Project"
    ]
    assert len(projects) == 3
    for project in projects:
        specification = yaml.safe_load(project["Source"]["BuildSpec"])
        assert specification["version"] == 0.2
        for phase in specification["phases"].values():
            for command in phase["commands"]:
                assert isinstance(command, str)
                subprocess.run(["bash", "-n", "-c", command], check=True)
