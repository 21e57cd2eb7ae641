"""Is this machine, this installation, this workspace fit for work? Looks, and changes nothing.

It is for installations that are broken too, so nothing here may need a package to be there, and a
check that fails itself is told like any other problem.
"""

import os
import platform
import re
import shutil
import socket
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from shlex import quote
from stat import S_IMODE
from typing import Literal

from lineage.code import LOCK
from lineage.errors import BadInput
from lineage.files import in_bytes, sizes
from lineage.workspace import Workspace, given_secret

State = Literal["ok", "warning", "problem"]

SECRETS = "LIGHTBOX_SECRET_"
GIB = 2**30
FREE_GIB = 5.0  # a year of small runs; below it, say so
LEAST_FREE_GIB = 0.5  # less than what one training run may write
LEAST_MEMORY_GIB = 4.0  # a training run and an endpoint, side by side
COUNTING_S = 1.0  # for how long at most the files of a workspace are counted
WAITING_S = 3.0  # for a tracking server
CLOCK_S = 5.0  # two clocks that differ by less agree
DRIVER = Path("/proc/driver/nvidia/version")  # there as soon as the kernel drives a GPU
DECODERS = ("pylibjpeg", "openjpeg", "gdcm", "jpeg_ls")  # of compressed DICOM; written in C


@dataclass(frozen=True)
class Check:
    """What was looked at, how it is, and the way out if it is not well."""

    name: str
    state: State
    told: str
    way: str = ""


def examine(place: Workspace, *, gpu: bool = False) -> list[Check]:
    """Look at everything.

    Args:
        place: The workspace; it need not exist yet.
        gpu: Also compute something on the GPU, which means to import torch.
    """
    checks: dict[str, Callable[[], Check]] = {
        "python": _python,
        "packages": _packages,
        "decoders": _decoders,
        "machine": _machine,
        "gpu": _computed if gpu else _gpu,
        "ports": _ports,
        "clock": lambda: _clock(place),
        "workspace": lambda: _writable(place),
        "disk": lambda: _disk(place),
        "secrets": lambda: _secrets(place),
        "tracking": lambda: _tracking(place),
        "endpoints": lambda: _endpoints(place),
        "runs": lambda: _runs(place),
        "store": lambda: _store(place),
    }
    return [_guarded(name, check) for name, check in checks.items()]


def _guarded(name: str, check: Callable[[], Check]) -> Check:
    try:
        return check()
    except ImportError as error:
        told = f"cannot be checked as long as {error.name or 'a package'} cannot be imported"
        return Check(name, "problem", told, "`make install`")
    except Exception as error:  # whatever is broken, the other checks must still be told
        told = f"could not be checked ({type(error).__name__})"
        return Check(name, "problem", told, "mend what else is told here, then try again")


def _python() -> Check:
    found = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    if sys.version_info[:2] == (3, 11) and found.endswith("Linux x86_64"):
        return Check("python", "ok", found)
    way = "use Python 3.11 on Linux x86-64, or the container image"
    return Check("python", "problem", f"{found}; the pinned packages are for another", way)


def _packages() -> Check:
    pins = dict(re.findall(r"^([\w.-]+)==([^\s;]+)", LOCK.read_text(), re.MULTILINE))
    facts = [distribution.metadata for distribution in metadata.distributions()]
    found = {_plain(each["Name"]): each["Version"] for each in facts if each["Name"]}
    missing = [name for name in pins if _plain(name) not in found]
    # A local label, as in 2.13.0+cpu, is another build of the same version.
    others = [
        f"{name} is {here}, not {pin}"
        for name, pin in pins.items()
        if (here := found.get(_plain(name))) and here.partition("+")[0] != pin
    ]
    if not missing and not others:
        return Check("packages", "ok", f"all {len(pins)} are as pinned in {LOCK.name}")
    told = [f"missing: {', '.join(missing)}"] if missing else []
    way = f"`make install`, or pip install -r {LOCK.name}; records name the pinned versions"
    return Check("packages", "problem", "; ".join(told + others), way)


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _decoders() -> Check:
    broken = [name for name in DECODERS if not _imports(name)]
    if not broken:
        return Check("decoders", "ok", "compressed DICOM can be read")
    told = f"{', '.join(broken)} cannot be loaded; some compressed DICOM will be set aside"
    return Check("decoders", "problem", told, "`make install`")


def _imports(name: str) -> bool:
    try:
        return bool(import_module(name))
    except Exception:  # a shared library that is not there, of another ABI, ...
        return False


def _machine() -> Check:
    cores = len(os.sched_getaffinity(0))
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = Path("/sys/fs/cgroup/memory.max")  # of a container
    if limit.exists() and (text := limit.read_text().strip()).isdigit():
        memory = min(memory, int(text))
    told = f"{cores} cores, {memory / GIB:.1f} GiB of memory"
    if memory < LEAST_MEMORY_GIB * GIB:
        way = f"give it {LEAST_MEMORY_GIB:g} GiB, or set a smaller training.batch_size"
        return Check("machine", "warning", f"{told}; training may be killed", way)
    return Check("machine", "ok", told)


def _gpu() -> Check:
    """Read from files, for importing torch takes seconds."""
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return Check("gpu", "problem", "torch is not installed", "`make install`")
    text = Path(spec.origin).with_name("version.py").read_text()
    built = re.search(r"^cuda\b.*= '(.+)'", text, re.MULTILINE)
    if not DRIVER.exists():
        return Check("gpu", "ok", "none; training runs on the CPU")
    if not built:
        version = metadata.version("torch").partition("+")[0]
        way = f"pip install --force-reinstall --no-deps torch=={version} from the public index"
        return Check("gpu", "warning", "there is one, but this torch is built for the CPU", way)
    told = f"there is one, and torch is built for CUDA {built[1]}; --gpu tries them"
    return Check("gpu", "ok", told)


def _computed() -> Check:
    known = _gpu()
    if known.state != "ok" or not DRIVER.exists():
        return known
    import torch

    if not torch.cuda.is_available():
        way = "update the driver, or set CUDA_VISIBLE_DEVICES to a GPU"
        return Check("gpu", "problem", "torch cannot use the GPU that is there", way)
    ones = torch.ones(256, 256, device="cuda")
    right = bool((ones @ ones == 256).all())
    free, total = torch.cuda.mem_get_info()
    told = f"{torch.cuda.get_device_name()}, {free / GIB:.1f} of {total / GIB:.1f} GiB free"
    if not right:
        return Check("gpu", "problem", f"{told}; it computes wrongly", "set training.device: cpu")
    return Check("gpu", "ok", told)


def _ports() -> Check:
    try:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            with socket.create_connection(listener.getsockname(), timeout=1):
                return Check("ports", "ok", "the loopback interface takes connections")
    except OSError as error:
        told = f"no endpoint can listen on 127.0.0.1 ({error.strerror or 'no answer'})"
        return Check("ports", "problem", told, "allow connections on the loopback interface")


def _clock(place: Workspace) -> Check:
    from pipelines.runs import past_runs

    try:
        with tempfile.TemporaryFile(dir=_nearest(place.home)) as file:
            file.write(b"x")
            file.flush()
            apart = os.fstat(file.fileno()).st_mtime - time.time()
    except OSError:
        apart = 0.0  # nothing can be written; the check of the workspace says so
    if abs(apart) > CLOCK_S:
        told = f"the file system's clock is {apart:+.0f} s apart from this machine's"
        return Check("clock", "warning", told, "let NTP set both, or changed files go unnoticed")
    last = next((run.started_at for run in past_runs(place)), "")
    if last > time.strftime("%Y-%m-%dT%H:%M:%S+", time.gmtime(time.time() + CLOCK_S)):
        told = "the newest run started in the future, so the clock was set back"
        return Check("clock", "warning", told, "let NTP set the clock: records are in its order")
    return Check("clock", "ok", time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()))


def _writable(place: Workspace) -> Check:
    import fcntl

    folder = _nearest(place.home)
    try:
        with tempfile.NamedTemporaryFile(dir=folder) as file, Path(file.name).open() as again:
            file.write(b"x")
            file.flush()
            os.fsync(file.fileno())
            fcntl.flock(file, fcntl.LOCK_EX)
            try:
                fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                new = "" if folder == place.home else "; the first run makes it"
                return Check("workspace", "ok", f"{place.home} can be written{new}")
            told = "the file system does not lock files, so two runs could spoil each other"
    except OSError as error:
        told = f"{place.home} cannot be written ({error.strerror})"
    way = "mend that, or let LIGHTBOX_HOME name a folder on a local disk"
    return Check("workspace", "problem", told, way)


def _disk(place: Workspace) -> Check:
    free = shutil.disk_usage(_nearest(place.home)).free
    until = time.monotonic() + COUNTING_S
    used, over = 0, ""
    for size in sizes(place.home):
        used += size
        if time.monotonic() > until:
            over = "over "
            break
    told = f"{in_bytes(free)} free; the workspace holds {over}{in_bytes(used)}"
    if free >= FREE_GIB * GIB:
        return Check("disk", "ok", told)
    way = "`lightbox gc` says what can go; LIGHTBOX_HOME can name another disk"
    return Check("disk", "problem" if free < LEAST_FREE_GIB * GIB else "warning", told, way)


def _secrets(place: Workspace) -> Check:
    folder = place.home / "secrets"
    given = {name.removesuffix("_FILE") for name in os.environ if name.startswith(SECRETS)}
    for variable in sorted(given):
        try:
            given_secret(variable)
        except BadInput as error:
            return Check("secrets", "problem", str(error), "set it to the secret, or unset it")
    if not folder.is_dir():
        told = "from the environment" if given else "none yet; made when first needed"
        return Check("secrets", "ok", told)
    paths = [folder, *sorted(folder.rglob("*"))]  # lists of what was set aside, too
    # The crosswalk of drawn pseudonyms lies here, too, with what SQLite keeps beside it.
    keys = [path for path in folder.iterdir() if path.is_file() and ".sqlite" not in path.name]
    if foreign := [path.name for path in paths if path.stat().st_uid != os.geteuid()]:
        told = f"another account owns {', '.join(foreign)}"
        return Check("secrets", "problem", told, f"chown -R $(id -u) {quote(str(folder))}")
    if opened := [path.name for path in paths if S_IMODE(path.stat().st_mode) & 0o077]:
        told = f"other accounts may read {', '.join(opened)}; treat these keys as known to them"
        return Check("secrets", "problem", told, f"chmod -R u=rwX,go= {quote(str(folder))}")
    if torn := [p.name for p in keys if not re.fullmatch(rb"[0-9a-f]{64}\s*", p.read_bytes())]:
        told = f"{', '.join(torn)}: not a secret of 64 hex digits"
        return Check("secrets", "problem", told, "restore it from a backup: a new one is another")
    key = "there" if place.has_secret("pseudonym.key") else "made when first needed"
    return Check("secrets", "ok", f"readable by their owner only; the pseudonym key is {key}")


def _tracking(place: Workspace) -> Check:
    from pipelines.ui import SQLITE, without_password

    uri = place.mlflow_uri
    if uri.startswith("http"):
        return _server(uri, without_password(uri))
    if not uri.startswith(SQLITE):
        return Check("tracking", "ok", f"{without_password(uri)} is asked at the first need")
    path = Path(uri.removeprefix(SQLITE)).absolute()
    if not path.exists():
        return Check("tracking", "ok", "nothing yet; the first run makes mlflow.db")
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=1)) as database:
            [(version,)] = database.execute("SELECT version_num FROM alembic_version")
    except (sqlite3.Error, ValueError) as error:
        told = f"mlflow.db cannot be read ({type(error).__name__})"
        return Check("tracking", "problem", told, "restore it from a backup")
    known, head = _revisions()
    if version == head:
        return Check("tracking", "ok", "mlflow.db has the schema of this MLflow")
    if version in known:
        way = f"copy it, then run `mlflow db upgrade {uri}`"
        return Check("tracking", "problem", "mlflow.db was made by an older MLflow", way)
    told = "mlflow.db was made by a newer MLflow, or is none of its databases"
    return Check("tracking", "problem", told, "`make install`, or restore it from a backup")


def _server(uri: str, shown: str) -> Check:
    from http.client import HTTPConnection, HTTPException, HTTPSConnection
    from urllib.parse import urlsplit

    parts = urlsplit(uri)
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    try:
        with closing(kind(parts.hostname or "", parts.port, timeout=WAITING_S)) as connection:
            connection.request("GET", f"{parts.path.rstrip('/')}/health")
            status = connection.getresponse().status
    except (OSError, HTTPException) as error:
        way = "start the server or the network, or unset MLFLOW_TRACKING_URI to work without"
        told = f"{shown} does not answer ({type(error).__name__})"
        return Check("tracking", "problem", told, way)
    told = f"{shown} answers with status {status}"
    state: State = "ok" if status < 500 else "problem"
    return Check("tracking", state, told, "" if state == "ok" else "ask whoever runs that server")


def _revisions() -> tuple[set[str], str]:
    """The versions of its database that the installed MLflow knows, and the one that it needs."""
    spec = find_spec("mlflow")
    if spec is None or spec.origin is None:
        raise ImportError(name="mlflow")
    folder = Path(spec.origin).parent / "store" / "db_migrations" / "versions"
    texts = [path.read_text() for path in folder.glob("[!_]*.py")]
    found = [re.findall(r'^(?:down_)?revision = "(\w+)"', text, re.MULTILINE) for text in texts]
    known, earlier = {own for own, *_ in found}, {down for _, *downs in found for down in downs}
    [head] = known - earlier
    return known, head


def _endpoints(place: Workspace) -> Check:
    folders = sorted(path.parent for path in place.endpoint("x").parent.glob("*/state.json"))
    noted = [folder.name for folder in folders if (folder / "endpoint.json").exists()]
    running = [name for name in noted if _answers(place, name)]
    if dead := [name for name in noted if name not in running]:
        told = f"{', '.join(dead)} crashed or was killed, or does not answer"
        way = f"`lightbox endpoint start {dead[0]}` brings it back; server.log there may say why"
        return Check("endpoints", "warning", told, way)
    told = f"{', '.join(running) or 'none'} of {len(folders)} running" if folders else "none yet"
    return Check("endpoints", "ok", told)


def _answers(place: Workspace, model: str) -> bool:
    from serving.config import TOKEN
    from serving.local_endpoint import LocalEndpoint

    # Asking needs the token, and would make one where there is none.
    return place.has_secret(TOKEN) and LocalEndpoint(place, model).status() is not None


def _runs(place: Workspace) -> Check:
    from pipelines.runs import past_runs

    every = past_runs(place)
    # A run that was interrupted and later begun again is no news.
    latest = {(run.pipeline, run.config): run for run in reversed(every)}
    stopped = [run for run in latest.values() if run.outcome == "interrupted"]
    if stopped:
        names = ", ".join(run.id for run in stopped)
        way = f"`lightbox run {stopped[0].config or 'CONFIG'}` goes on from there"
        return Check("runs", "warning", f"interrupted: {names}", way)
    going = sum(run.outcome == "running" for run in every)
    return Check("runs", "ok", f"{len(every)} so far, {going} going on")


def _store(place: Workspace) -> Check:
    from pipelines.runs import alive

    folder = place.store / "building"
    builds = list(folder.iterdir()) if folder.is_dir() else []
    # Named by `Store.building`: step, process, and letters of chance.
    pids = {path: path.name.rsplit("-", 2)[-2:][0] for path in builds}
    left = [path for path, pid in pids.items() if not (pid.isdigit() and alive(int(pid)))]
    if not left:
        return Check("store", "ok", "no leftovers")
    size = in_bytes(sum(size for path in left for size in sizes(path)))
    told = f"killed runs left {len(left)} unfinished outputs, {size}"
    return Check("store", "warning", told, "`lightbox gc --yes` removes them")


def _nearest(path: Path) -> Path:
    """The folder itself, or the one in which it would be made."""
    return next(place for place in (path, *path.parents) if place.exists())
