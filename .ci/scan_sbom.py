"""Write down what is inside .venv, or inside a container image, as CycloneDX 1.6.

An image's list has its Debian packages too. It needs a container engine, and the image needs Python
(without any network: what is listed is what the image itself says).
"""

import argparse
import json
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from email.parser import HeaderParser
from pathlib import Path
from typing import Any
from urllib.parse import quote

ROOT = Path(__file__).resolve().parents[1]

# Run by the image's own Python: packages' metadata, and Debian's list of what it installed.
PACK = """
import sys, tarfile
from pathlib import Path
with tarfile.open(fileobj=sys.stdout.buffer, mode="w|") as tar:
    for folder in map(Path, dict.fromkeys(sys.path)):
        for info in sorted(folder.glob("*.dist-info")):
            tar.add(info, f"packages/{info.name}")
    if Path("/var/lib/dpkg/status").exists():
        tar.add("/var/lib/dpkg/status", "debian")
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the list, and hold it to the schema."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("image", nargs="?")
    given = parser.parse_args(arguments)

    sbom = of_image(given.image) if given.image else of_python(ROOT / ".venv")
    text = json.dumps(sbom, indent=2) + "\n"
    validate(text)
    given.output.parent.mkdir(parents=True, exist_ok=True)
    given.output.write_text(text)
    print(f"sbom: {len(sbom['components'])} components in {given.output}")
    return 0


def of_python(python: Path) -> dict[str, Any]:
    """What cyclonedx-py finds in a virtual environment, or with a program that acts as Python."""
    command = [str(Path(sys.executable).with_name("cyclonedx-py")), "environment", str(python)]
    command += ["--pyproject", str(ROOT / "pyproject.toml"), "--spec-version", "1.6"]
    command += ["--output-reproducible", "--output-format", "JSON"]
    found = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    made: dict[str, Any] = json.loads(found)
    return made


def of_image(image: str) -> dict[str, Any]:
    """Python packages and Debian packages of an image, which is named by its own digest."""
    run = ["docker", "run", "--rm", "--network", "none", "--entrypoint", "python", image]
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        with (folder / "tar").open("wb") as file:
            subprocess.run([*run, "-c", PACK], check=True, stdout=file)
        with tarfile.open(folder / "tar") as tar:
            tar.extractall(folder, filter="data")
        # All that cyclonedx-py asks of a Python is where its packages lie.
        python = folder / "python"
        python.write_text(f"#!/bin/sh\necho '{json.dumps([str(folder / 'packages')])}'\n")
        python.chmod(0o755)
        sbom = of_python(python)
        debian = folder / "debian"
        if debian.exists():
            sbom["components"] += debian_packages(debian.read_text())
    identity = ["docker", "image", "inspect", "--format", "{{.Id}}", image]
    digest = subprocess.run(identity, check=True, capture_output=True, text=True).stdout.strip()
    sbom["metadata"]["component"] |= {"type": "container", "name": image, "version": digest}
    return sbom


def debian_packages(status: str) -> Iterator[dict[str, str]]:
    """A component for each package that is installed, from Debian's own list."""
    for block in status.strip().split("\n\n"):
        package = HeaderParser().parsestr(block)
        if package["Status"] == "install ok installed":
            name, version = package["Package"], package["Version"]
            purl = f"pkg:deb/debian/{name}@{quote(version, safe='.~-')}"
            purl += f"?arch={package['Architecture']}"
            yield {
                "type": "library",
                "bom-ref": purl,
                "name": name,
                "version": version,
                "purl": purl,
            }


def validate(text: str) -> None:
    """Hold a list to the strict schema of CycloneDX 1.6."""
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    if problem := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        sys.exit(f"not CycloneDX 1.6: {problem}")


if __name__ == "__main__":
    sys.exit(main())
