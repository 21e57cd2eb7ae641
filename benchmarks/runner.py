"""What the local runner costs, side by side with others, in one run on one machine.

    python benchmarks/runner.py [--cache DIR] [--rounds 5] > runner.md

A chain of ten trivial steps: each reads a small text and writes a longer one (`peers/`, one file
per tool). Each tool runs in a virtual environment of its own, made under the cache folder
at the first use, takes its turn in every round, and starts each round in an empty folder. What
really ran is counted by a journal that the steps write, not taken from what a tool reports.
"""

import argparse
import hashlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[1]
PEERS = Path(__file__).resolve().parent / "peers"
sys.path.insert(0, str(ROOT))

from lineage.digest import file_digest  # noqa: E402  after the path, so that no install is needed
from lineage.known import AT_REST_NS, Known  # noqa: E402  likewise

STEPS = 10
LIMIT_S = 180
QUIET = {  # telemetry off; nothing of the user's is read or written, see `environment`
    "DO_NOT_TRACK": "1",
    "KEDRO_DISABLE_TELEMETRY": "1",
    "ZENML_ANALYTICS_OPT_IN": "false",
    "METAFLOW_USER": "benchmark",
}


@dataclass(frozen=True)
class Tool:
    """One way to run the chain; `pin` is what pip installs for it."""

    name: str
    pin: str = ""
    phases: tuple[str, ...] = ("first", "again", "edited")
    slow: bool = False  # takes part in the first rounds only


TOOLS = (
    Tool("lightbox"),
    Tool("plain", phases=("first",)),
    Tool("kedro", "kedro==1.7.0", phases=("first",)),
    Tool("dagster", "dagster==1.13.28", phases=("first",)),
    Tool("redun", "redun==0.44.1"),
    Tool("metaflow", "metaflow==2.19.39", slow=True),
    Tool("kfp", "kfp==2.17.0"),
    Tool("zenml", "zenml[local]==0.98.0", slow=True),
)
SLOW_ROUNDS = 3
GROWTH = (10, 100, 1000)
INPUTS = ((200, 10_000_000), (20_000, 5_000))  # files, bytes each


class CannotRun(Exception):
    """A tool could not be installed or did not run; the text is the reason."""


@dataclass(frozen=True)
class Timing:
    """One process: its own time for the chain, and from its start to its end."""

    inside: float
    whole: float
    executed: int  # steps that ran, by the journal


@dataclass
class Found:
    """All timings of one tool by phase, or the reason why there are none."""

    timings: dict[str, list[Timing]] = field(default_factory=dict)
    reason: str = ""

    def add(self, timings: dict[str, Timing]) -> None:
        for phase, timing in timings.items():
            self.timings.setdefault(phase, []).append(timing)

    def inside(self, phase: str) -> list[float]:
        return [t.inside for t in self.timings[phase]]

    def whole(self, phase: str) -> list[float]:
        return [t.whole for t in self.timings[phase]]

    def executed(self, phase: str) -> str:
        return "/".join(map(str, sorted({t.executed for t in self.timings[phase]})))


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def interpreter(tool: Tool, cache: Path) -> Path:
    """The Python that runs a tool, installed at the pinned version if it is not yet."""
    if not tool.pin:
        return Path(sys.executable)
    name, version = tool.pin.split("==")
    folder = cache / tool.pin.replace("[", "-").replace("]", "")
    python = folder / "bin" / "python"
    ask = f"from importlib.metadata import version as v; print(v({name.split('[')[0]!r}))"
    if python.exists():
        asked = subprocess.run([python, "-c", ask], capture_output=True, text=True)
        if asked.stdout.strip() == version:
            return python
    say(f"installing {tool.pin}")
    shutil.rmtree(folder, ignore_errors=True)
    for command in (
        [sys.executable, "-m", "venv", folder],
        [python, "-m", "pip", "install", "--quiet", tool.pin],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            shutil.rmtree(folder, ignore_errors=True)
            raise CannotRun(f"cannot be installed: {last_line(done.stderr)}")
    return python


def last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].replace("|", "/")[:120] if lines else "it said nothing"


def environment(home: Path, tool: Tool) -> dict[str, str]:
    """A home of its own, telemetry off, and our packages for nobody else."""
    kept = {k: v for k, v in os.environ.items() if k in ("PATH", "LANG", "TMPDIR")}
    ours = {"PYTHONPATH": str(ROOT)} if tool.name == "lightbox" else {}
    own = {"HOME": home, "USERNAME": "benchmark", "ZENML_CONFIG_PATH": home / "zenml"}
    return kept | QUIET | ours | {k: str(v) for k, v in own.items()} | {"TEXT": f"{home}/text.txt"}


def timed(tool: Tool, python: Path, home: Path, phase: str, *extra: str) -> Timing:
    """Run one process of a tool, and end whatever it may have left behind.

    Raises:
        CannotRun: It failed, took too long, or ran another number of steps than it should.
    """
    program, text = PEERS / f"{tool.name}_chain.py", home / "text.txt"
    verb = "run" if phase == "first" else "resume"  # Metaflow has its own command line
    arguments = [verb] if tool.name == "metaflow" else [str(text), phase, *extra]
    journal = home / "journal"
    before = lines_of(journal)
    began = time.perf_counter()
    process = subprocess.Popen(
        [python, program, *arguments],
        cwd=home, env=environment(home, tool), start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        output, errors = process.communicate(timeout=LIMIT_S)
        whole = time.perf_counter() - began
    except subprocess.TimeoutExpired:
        raise CannotRun(f"took more than {LIMIT_S} s") from None
    finally:
        with suppress(ProcessLookupError):  # its whole group, by the number that we started
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.returncode:
        raise CannotRun(f"failed: {last_line(errors)}")
    inside = json.loads(output.splitlines()[-1])["seconds"]
    executed = lines_of(journal) - before
    wanted = int(extra[0]) if extra else STEPS
    if phase == "first" and executed != wanted:
        raise CannotRun(f"ran {executed} of {wanted} steps")
    return Timing(inside, whole, executed)


def lines_of(path: Path) -> int:
    return len(path.read_text().splitlines()) if path.exists() else 0


def round_of(tool: Tool, python: Path, *extra: str) -> dict[str, Timing]:
    """Each phase once, in an empty folder: nothing is there, nothing changed, the source did."""
    with TemporaryDirectory(prefix="lightbox-benchmark-") as folder:
        home, found = Path(folder).resolve(), {}
        (home / "text.txt").write_text("a\n")
        for phase in tool.phases:
            if phase == "edited":
                (home / "text.txt").write_text("another\n")
            found[phase] = timed(tool, python, home, phase, *extra)
        return found


def compare(cache: Path, rounds: int) -> dict[str, Found]:
    """All tools in turn, round after round; round 0 fills caches of files and is not kept."""
    found = {tool.name: Found() for tool in TOOLS}
    for number in range(rounds + 1):
        say(f"chains, round {number} of {rounds}")
        turn = number % len(TOOLS)  # so that nobody always follows the heaviest
        for tool in TOOLS[turn:] + TOOLS[:turn]:
            it = found[tool.name]
            if it.reason or (tool.slow and number > SLOW_ROUNDS):
                continue
            try:
                timings = round_of(tool, interpreter(tool, cache))
            except CannotRun as error:
                it.reason = str(error)
                continue
            if number:
                it.add(timings)
    return found


def growth(rounds: int) -> dict[int, Found]:
    """Ours on longer chains, in turn."""
    found = {steps: Found() for steps in GROWTH}
    ours = Tool("lightbox", phases=("first", "again"))
    for number in range(rounds):
        say(f"growth, round {number + 1} of {rounds}")
        for steps in GROWTH:
            found[steps].add(round_of(ours, Path(sys.executable), str(steps)))
    return found


@contextmanager
def files(count: int, size: int) -> Iterator[Path]:
    """A folder of that many files of random bytes, none touched lately; gone afterwards."""
    with TemporaryDirectory(prefix="lightbox-benchmark-") as name:
        folder = Path(name).resolve()
        for number in range(count):
            (folder / f"{number:05}.bin").write_bytes(os.urandom(size))
        time.sleep(AT_REST_NS / 1e9 + 0.1)
        yield folder


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def hashing(count: int, size: int, rounds: int) -> dict[str, list[float]]:
    """Seconds to name a folder by content, by what was done to it; and what the machine allows."""
    found: dict[str, list[float]] = {}
    with files(count, size) as folder:
        for _ in range(rounds):
            for what, took in hash_once(folder, count * size).items():
                found.setdefault(what, []).append(took)
            time.sleep(AT_REST_NS / 1e9 + 0.1)  # the file that was changed comes to rest
    return found


def hash_once(folder: Path, total: int) -> dict[str, float]:
    names = [str(path) for path in sorted(folder.iterdir())]
    block, digests = bytes(1 << 20), []
    with TemporaryDirectory(prefix="lightbox-benchmark-") as memory:

        def ours() -> None:  # a new object each time, as a new process would have
            digests.append(Known(Path(memory)).tree_digest(folder))

        def limit() -> None:
            for _ in range(total // len(block)):
                hashlib.sha256(block).digest()

        found = {
            "sha256 of as many bytes in memory: the limit": seconds(limit),
            "sha256 of each file": seconds(lambda: [file_digest(name) for name in names]),
            "ours, first time": seconds(ours),
            "stat of each file: the limit": seconds(lambda: [os.stat(n) for n in names]),  # noqa: PTH116  a Path costs more than the stat
            "ours, nothing changed": seconds(ours),
        }
        changed = Path(names[0])
        changed.write_bytes(os.urandom(changed.stat().st_size))
        found["ours, one file changed"] = seconds(ours)
    assert digests[0] == digests[1] != digests[2]
    return found


def spread(values: list[float], unit: str = "ms") -> str:
    """Median (least to most)."""
    factor = 1000 if unit == "ms" else 1
    low, middle, high = (factor * v for v in (min(values), median(values), max(values)))
    return f"{number(middle)} ({number(low)}–{number(high)})"


def times(values: list[float], of: list[float]) -> str:
    return f"{number(median(values) / median(of))} ×"


def number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"  # three digits, no exponent


def table(*rows: list[str]) -> None:
    head, *body = rows
    for row in (head, ["---"] * len(head), *body):
        print(f"| {' | '.join(row)} |")
    print(flush=True)


def label(tool: Tool) -> str:
    names = {"lightbox": "**ours**", "plain": "the same calls in plain Python: the limit"}
    return names.get(tool.name) or tool.pin.replace("==", " ")


def print_machine() -> None:
    describe = ["git", "-C", ROOT, "describe", "--always", "--dirty"]
    commit = subprocess.run(describe, capture_output=True, text=True).stdout.strip()
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    print(
        f"{datetime.now(UTC):%Y-%m-%d}, {len(os.sched_getaffinity(0))} cores of "
        f"{(models or [platform.machine()])[0]}, {memory:.0f} GiB, {platform.system()} "
        f"{platform.release()}, Python {platform.python_version()}, commit {commit or 'unknown'}. "
        "Medians (least–most).\n"
    )


def print_chains(found: dict[str, Found], phase: str) -> None:
    """One phase, the tools that have it; a tool that did not run has its reason for numbers."""
    ours = found["lightbox"]
    first = phase == "first"
    head = ["tool", "per step, ms" if first else "chain, ms", "of ours", "whole process, s"]
    head += ["of ours", "steps run", *([] if first else ["run after the source was edited"])]
    rows = [head]
    for tool in TOOLS:
        if phase not in tool.phases:
            continue
        it, row = found[tool.name], [label(tool)]
        if it.reason or ours.reason:
            row.append(it.reason or "ours did not run")
        else:
            inside, whole = it.inside(phase), it.whole(phase)
            row += [spread([v / STEPS for v in inside] if first else inside),
                    times(inside, ours.inside(phase)), spread(whole, "s"),
                    times(whole, ours.whole(phase)), it.executed(phase)]  # fmt: skip
            row += [] if first else [it.executed("edited")]
        rows.append(row + [""] * (len(head) - len(row)))
    table(*rows)


def print_growth(found: dict[int, Found]) -> None:
    print("### Longer chains, ours, ms per step\n")
    rows = [["steps", "first run", "unchanged re-run", "whole process again, s", "run again"]]
    for steps, it in found.items():
        first, again = ([v / steps for v in it.inside(phase)] for phase in ("first", "again"))
        rows.append([str(steps), spread(first), spread(again), spread(it.whole("again"), "s"),
                     it.executed("again")])  # fmt: skip
    table(*rows)
    few, many = found[GROWTH[1]], found[GROWTH[-1]]
    for phase, name in (("first", "first run"), ("again", "re-run")):
        ratio = times(many.inside(phase), few.inside(phase))
        print(f"{GROWTH[-1]:,} steps take {ratio} as long as {GROWTH[1]} ({name}).", end=" ")
    print("\n", flush=True)


def print_hashing(sizes: dict[tuple[int, int], dict[str, list[float]]]) -> None:
    print("### Naming an input by content, files in the page cache\n")
    heads = [f"{c:,} files of {s / 1e6:g} MB, ms" for c, s in sizes]
    columns = list(sizes.values())
    table(["what", *heads], *([what, *(spread(c[what]) for c in columns)] for what in columns[0]))
    for (count, size), took in sizes.items():
        speed = count * size / 1e6 / median(took["ours, first time"])
        print(f"{count:,} files: {speed:,.0f} MB/s at the first time.", end=" ")
    print("\n", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, default=Path("~/.cache/lightbox-benchmarks"))
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    began = time.perf_counter()
    cache = args.cache.expanduser().resolve()
    cache.mkdir(parents=True, exist_ok=True)
    print_machine()
    chains = compare(cache, args.rounds)
    print(f"### A chain of {STEPS} trivial steps, nothing done yet\n")
    print_chains(chains, "first")
    print("### The same again, nothing changed\n")
    print_chains(chains, "again")
    print_growth(growth(min(args.rounds, 3)))
    print_hashing({shape: hashing(*shape, rounds=3) for shape in INPUTS})
    say(f"{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
