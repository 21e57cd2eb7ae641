"""The scans find what they are for, and nothing in what is shipped."""

import json
import os
import secrets
import shutil
import subprocess
import tomllib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOCKS = [str(path) for path in (*ROOT.glob("requirements*.lock"), *(ROOT / ".ci").glob("*.lock"))]
Script = Callable[[str], ModuleType]


def test_no_pin_has_a_flaw_that_nobody_accepted(
    script: Script, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script(".ci/scan_dependencies.py").main(LOCKS) == 0
    assert "no other" in capsys.readouterr().out


def test_each_accepted_flaw_has_a_reason() -> None:
    accepted = tomllib.loads((ROOT / ".ci" / "advisories_accepted.toml").read_text())
    assert accepted and all(decision["reason"] for decision in accepted.values())


class Scan:
    """A lock, advisories and decisions of its own."""

    def __init__(self, module: ModuleType, folder: Path) -> None:
        self.module, self.folder = module, folder
        self.today = datetime.now(UTC).date()
        self.advisories(self.affects("wobbly", [{"introduced": "0"}, {"fixed": "1.2"}]))
        self.accept("")

    def affects(self, name: str, events: Sequence[dict[str, str]], **more: Any) -> dict[str, Any]:
        package = {"ecosystem": "PyPI", "name": name}
        spans = [{"type": "ECOSYSTEM", "events": list(events)}] if events else []
        affected = [{"package": package, "ranges": spans, **more}]
        return {"id": "GHSA-1", "aliases": ["CVE-1"], "summary": "it wobbles", "affected": affected}

    def advisories(self, *records: dict[str, Any], days_ago: int = 0) -> None:
        retrieved = (self.today - timedelta(days=days_ago)).isoformat()
        known = {"retrieved": retrieved, "advisories": records}
        (self.folder / "advisories.json").write_text(json.dumps(known))

    def accept(self, text: str) -> None:
        (self.folder / "accepted.toml").write_text(text)

    def run(self, lock: str, *more: str) -> int:
        (self.folder / "a.lock").write_text(lock)
        given = ["--advisories", "advisories.json", "--accepted", "accepted.toml"]
        paths = [given[0], str(self.folder / given[1]), given[2], str(self.folder / given[3])]
        exit_code: int = self.module.main([str(self.folder / "a.lock"), *paths, *more])
        return exit_code


@pytest.fixture
def scan(script: Script, tmp_path: Path) -> Scan:
    return Scan(script(".ci/scan_dependencies.py"), tmp_path)


@pytest.mark.parametrize(
    ("events", "affected", "not_affected"),
    [
        ([{"introduced": "0"}, {"fixed": "1.10"}], "1.9", "1.10"),
        ([{"introduced": "2.0"}], "3.17.2", "1.9"),
        ([{"introduced": "0"}, {"last_affected": "3.10.3"}], "3.10.3", "3.10.4"),
        ([{"introduced": "3.0"}, {"fixed": "3.8"}], "3.0", "2.9"),
        (
            [{"introduced": "0"}, {"fixed": "1.5"}, {"introduced": "2.0"}, {"fixed": "2.2"}],
            "2.1",
            "1.7",
        ),
        ([{"introduced": "2.0rc0"}, {"fixed": "2.1"}], "2.0rc1", "2.1"),
    ],
)
def test_a_flawed_version_is_found(
    scan: Scan, events: list[dict[str, str]], affected: str, not_affected: str
) -> None:
    scan.advisories(scan.affects("Wobbly", events))
    assert scan.run(f"wobbly=={affected}\n") == 1
    assert scan.run(f"wobbly=={not_affected}\n") == 0
    assert scan.run(f"other=={affected}\n") == 0


def test_pins_are_read_as_pip_writes_them(scan: Scan) -> None:
    scan.advisories(scan.affects("wob-bly", [], versions=["1.1"]))
    assert scan.run("Wob_Bly[all]==1.1 \\\n    --hash=sha256:00\n") == 1
    assert scan.run("a==1\nwob.bly==1.1; python_version > '3'\n") == 1
    assert scan.run("# wob-bly==1.1\nwob-bly==1.2\n") == 0


def test_a_flaw_is_accepted_by_name_until_a_day(
    scan: Scan, capsys: pytest.CaptureFixture[str]
) -> None:
    for until, exit_code in ((scan.today, 0), (scan.today - timedelta(days=1), 1)):
        scan.accept(f'[CVE-1]\nuntil = {until}\nreason = "never called"\n')
        assert scan.run("wobbly==1.1\n") == exit_code
    assert f"accepted until {until}" in capsys.readouterr().out
    scan.accept(f'[CVE-1]\nuntil = {scan.today}\nreason = "never called"\n')
    assert scan.run("wobbly==1.2\n") == 1
    assert "remove it" in capsys.readouterr().out


def test_an_old_list_says_so(scan: Scan, capsys: pytest.CaptureFixture[str]) -> None:
    scan.advisories(days_ago=31)
    assert scan.run("wobbly==1.1\n") == 0
    assert "31 days old" in capsys.readouterr().out
    scan.advisories(days_ago=30)
    scan.run("wobbly==1.1\n")
    assert "old" not in capsys.readouterr().out


def audit(*vulns: dict[str, Any], **package: str) -> str:
    return json.dumps({"dependencies": [{"name": "creaky", "vulns": vulns, **package}]})


def test_what_an_audit_found_is_taken_over_once(scan: Scan) -> None:
    scan.advisories(days_ago=99)
    flaw = {"id": "PYSEC-1", "aliases": ["CVE-2"], "description": "It creaks.\nA lot."}
    report = scan.folder / "audit.json"
    report.write_text(audit(flaw | {"fix_versions": ["3"]}, version="2.0"))
    for _ in range(2):
        assert scan.run("creaky==2.0\n", "--add", str(report)) == 1
    assert scan.run("creaky==3.0\n") == 0
    known = json.loads((scan.folder / "advisories.json").read_text())
    assert known["retrieved"] == scan.today.isoformat()
    (record,) = known["advisories"]
    assert (record["summary"], len(record["affected"])) == ("It creaks.", 1)


def test_an_audit_that_looked_nothing_up_is_not_taken_for_good(scan: Scan) -> None:
    (scan.folder / "audit.json").write_text(audit(skip_reason="not found on PyPI"))
    with pytest.raises(SystemExit, match="could not look up 1 packages, creaky first"):
        scan.run("", "--add", str(scan.folder / "audit.json"))


def test_what_is_installed_may_be_passed_on(
    script: Script, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script(".ci/scan_licences.py").main([]) == 0
    assert "paramiko" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("metadata", "exit_code"),
    [
        ("License-Expression: MIT", 0),
        ("License-Expression: GPL-3.0-or-later", 1),
        ("License-Expression: MIT AND GPL-3.0-or-later", 1),
        ("License-Expression: GPL-3.0-or-later OR MIT", 0),
        ("License-Expression: (MIT OR GPL-3.0-only) AND BSD-3-Clause", 1),
        ("Classifier: License :: OSI Approved :: MIT License", 0),
        ("Classifier: License :: OSI Approved :: GNU General Public License v3 (GPLv3)", 1),
        ("Classifier: License :: OSI Approved", 1),
        ("License: Apache 2.0", 0),
        ("License: for academic use", 1),
        ("Classifier: Programming Language :: Python", 1),
    ],
)
def test_a_licence_that_nobody_allowed_is_found(
    script: Script, tmp_path: Path, metadata: str, exit_code: int
) -> None:
    install(tmp_path, "wobbly", metadata)
    assert script(".ci/scan_licences.py").main([str(tmp_path)]) == exit_code


def install(folder: Path, name: str, metadata: str) -> None:
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.4\nName: {name}\nVersion: 1.0\n{metadata}\n"
    )


def test_an_exception_holds_for_the_licence_that_was_read(script: Script, tmp_path: Path) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text('allowed = []\n[exceptions.wobbly]\nlicence = "LGPL-2.1"\nreason = "ours"\n')
    licences = script(".ci/scan_licences.py")
    for licence, exit_code in (("LGPL-2.1", 0), ("LGPL-3.0", 1)):
        packages = tmp_path / licence
        packages.mkdir()
        install(packages, "wobbly", f"License-Expression: {licence}")
        assert licences.main([str(packages), "--rules", str(rules)]) == exit_code


@pytest.fixture
def repository(tmp_path: Path, with_scanners: None) -> Path:
    """A repository with nothing but the scan of secrets."""
    shutil.copytree(ROOT / ".ci", tmp_path / ".ci")
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    return tmp_path


def secrets_in(repository: Path) -> subprocess.CompletedProcess[str]:
    command = [str(repository / ".ci" / "scan_secrets")]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.usefixtures("with_scanners")
def test_no_file_holds_a_secret() -> None:
    scanned = secrets_in(ROOT)
    assert scanned.returncode == 0, scanned.stdout


# Put together here, so that this file holds none.
KINDS = {
    "AWS Access Key": lambda: "key = 'AKIA" + secrets.token_hex(8).upper() + "'",
    "Hex High Entropy String": lambda: f"KEY = '{secrets.token_hex(32)}'",
    "Private Key": lambda: "-----BEGIN " + "RSA PRIVATE KEY-----\nMIIE",
    "GitHub Token": lambda: "token = 'ghp_" + secrets.token_hex(18) + "'",
    "Basic Auth Credentials": lambda: "https://ada:" + "lovelace@ml.example",
}


def test_a_secret_is_found(repository: Path) -> None:
    assert secrets_in(repository).returncode == 0
    made = {kind: make() for kind, make in KINDS.items()}
    for number, secret in enumerate(made.values()):
        (repository / f"settings{number}.py").write_text(f"# ours\n{secret}\n")
    scanned = secrets_in(repository)
    assert scanned.returncode == 1
    for number, (kind, secret) in enumerate(made.items()):
        told = scanned.stdout.split(f"settings{number}.py:2")
        assert len(told) > 1 and f"Type: {kind}" in told[0].rsplit("\n\n", 1)[-1], kind
        assert secret not in scanned.stdout + scanned.stderr


def test_what_is_listed_may_stay_and_move(repository: Path) -> None:
    listed = repository / "settings.py"
    listed.write_text(KINDS["Hex High Entropy String"]() + "\n")
    subprocess.run([repository / ".ci" / "scan_secrets", "--accept"], check=True)
    listed.write_text("# a line above\n" + listed.read_text())
    assert secrets_in(repository).returncode == 0
    listed.write_text(KINDS["Hex High Entropy String"]() + "\n")
    assert secrets_in(repository).returncode == 1


def python(scanners: Path, code: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT / ".ci")}
    command = [str(scanners / "python"), "-c", code]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


DEBIAN = """Package: libc6
Status: install ok installed
Architecture: amd64
Version: 2.41-12+deb13u1

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1
"""


def test_an_sbom_lists_packages_and_is_held_to_its_schema(scanners: Path, tmp_path: Path) -> None:
    install(tmp_path, "wobbly", "License-Expression: MIT")
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\necho '[\"{tmp_path}\"]'\n")
    program.chmod(0o755)
    made = python(
        scanners,
        "import json, scan_sbom\n"
        f"sbom = scan_sbom.of_python({str(program)!r})\n"
        f"sbom['components'] += scan_sbom.debian_packages({DEBIAN!r})\n"
        "scan_sbom.validate(json.dumps(sbom))\n"
        "print(json.dumps(sbom))",
    )
    assert made.returncode == 0, made.stderr
    sbom = json.loads(made.stdout)
    assert (sbom["bomFormat"], sbom["specVersion"]) == ("CycloneDX", "1.6")
    assert sbom["metadata"]["component"]["name"] == "lightbox-mlops"
    assert [component["purl"] for component in sbom["components"]] == [
        "pkg:pypi/wobbly@1.0",
        "pkg:deb/debian/libc6@2.41-12%2Bdeb13u1?arch=amd64",
    ]
    assert sbom["components"][0]["licenses"][0]["license"]["id"] == "MIT"

    sbom["components"][1]["lisence"] = "MIT"
    refused = python(scanners, f"import scan_sbom; scan_sbom.validate({json.dumps(sbom)!r})")
    assert refused.returncode == 1 and "not CycloneDX 1.6" in refused.stderr


def test_tools_are_installed_by_their_hashes() -> None:
    lock = (ROOT / ".ci" / "scan_tools.lock").read_text()
    pins = [line for line in lock.splitlines() if "==" in line]
    assert pins and all(line.endswith("\\") for line in pins)
    asked = (ROOT / ".ci" / "scan_tools.in").read_text().splitlines()
    assert {line for line in asked if "==" in line and line[0] != "#"} <= {
        line.split(" ")[0] for line in pins
    }
