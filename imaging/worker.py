"""Work on untrusted files in child processes: what a file does to its reader costs that file only.

Children are started afresh (`python -m imaging.worker`), never forked, so that they share nothing
with a parent full of threads. They speak JSON over a pipe: what a decoder gone astray sends may be
nonsense, but never code, as a pickle could be.
"""

import importlib
import json
import os
import resource
import subprocess
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from lineage.errors import StepFailed
from lineage.progress import Report

DECODER_ABORTED = {"reason": "decoder_aborted"}
TOO_SLOW = {"reason": "too_slow"}
TOO_LARGE = {"reason": "too_large"}
START_TIMEOUT_S = 120.0
AHEAD = 4  # items that a child may hold, so that it need not wait for its parent after each


def map_isolated(
    task: str,
    setup: Any,
    items: Sequence[Any],
    *,
    timeout_s: float,
    memory_gib: float,
    processes: int | None = None,
    report: Report | None = None,
) -> list[Any]:
    """Call a function on each item, in child processes.

    Args:
        task: "module:name" of a function whose call `name(setup)` gives the function of one item.
        setup: JSON value, sent to each child over its pipe, so it may hold a key.
        items: JSON values.
        timeout_s: Longest time for one item; its child is then killed and replaced.
        memory_gib: Address space that a child may take on top of its imports.
        processes: Children at a time; one per core by default.
        report: Told of the progress.

    Returns:
        JSON results in the order of the items; `DECODER_ABORTED` where the child died, `TOO_SLOW`
        where it was killed, `TOO_LARGE` where memory ran out, and the reason `unexpected_error`
        with a place in our code where the function raised anything else.

    Raises:
        StepFailed: A child could not start.
    """
    results: list[Any] = [None] * len(items)
    answers = each_isolated(
        task, setup, items, timeout_s=timeout_s, memory_gib=memory_gib, processes=processes
    )
    for done, (item, answer) in enumerate(answers, start=1):
        results[item] = answer
        if report:
            report(done, len(items), "")
    return results


def each_isolated(
    task: str,
    setup: Any,
    items: Sequence[Any],
    *,
    timeout_s: float,
    memory_gib: float,
    processes: int | None = None,
) -> Iterator[tuple[int, Any]]:
    """As `map_isolated`, but each result is handed on as it comes, with its item's index.

    What the results hold is then nobody's memory but the caller's.
    """
    order = {"task": task, "setup": setup, "memory_bytes": int(memory_gib * 2**30)}
    todo = deque(range(len(items)))
    wanted = min(processes or len(os.sched_getaffinity(0)), len(items))
    children: list[_Child] = []
    try:
        children += [_Child(order) for _ in range(wanted)]
        while children:
            patience = min(child.deadline for child in children) - time.monotonic()
            ready = wait([child.pipe for child in children], timeout=max(0.0, patience))
            for child in list(children):
                if child.pipe in ready:
                    answer, alive = child.answer()
                elif time.monotonic() >= child.deadline and not child.pipe.poll():
                    answer, alive = TOO_SLOW, False
                else:
                    continue
                if child.items:
                    yield child.items.popleft(), answer
                elif not alive:
                    raise StepFailed("a worker process could not start; its messages are above")
                if not alive:
                    todo.extendleft(reversed(child.items))  # it had not come to these
                    child.end()
                    children.remove(child)
                    if todo:
                        children.append(_Child(order))
                    continue
                # Towards the end each holds one only, or some would wait behind a slow one.
                while todo and len(child.items) < max(1, min(AHEAD, len(todo) // wanted)):
                    child.give(item := todo.popleft(), items[item])
                if child.items:
                    child.deadline = time.monotonic() + timeout_s
                else:
                    child.end()
                    children.remove(child)
    finally:
        for child in children:
            child.end()


class _Child:
    """One child process, and the indices of the items that it holds; it works on the first."""

    def __init__(self, order: dict[str, Any]) -> None:
        self.items: deque[int] = deque()
        self.deadline = time.monotonic() + START_TIMEOUT_S
        self.pipe, theirs = Pipe()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "imaging.worker", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            # One thread each: the cores are taken, and thread stacks count as address space.
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                "OPENBLAS_NUM_THREADS": "1",
                "OMP_NUM_THREADS": "1",
            },
        )
        theirs.close()
        self.pipe.send_bytes(json.dumps(order).encode())

    def give(self, item: int, value: Any) -> None:
        """Hand it an item."""
        self.items.append(item)
        with suppress(OSError):  # it died between two items; `answer` will tell
            self.pipe.send_bytes(json.dumps(value).encode())

    def answer(self) -> tuple[Any, bool]:
        """What it says, and whether it is still of use."""
        try:
            return json.loads(self.pipe.recv_bytes()), True
        except (EOFError, OSError, ValueError):
            return DECODER_ABORTED, False

    def end(self) -> None:
        self.pipe.close()
        self.process.kill()
        self.process.wait()


def main(descriptor: int) -> None:
    """A child's life: set up, confine itself, answer until the pipe closes."""
    pipe = Connection(descriptor)
    order = json.loads(pipe.recv_bytes())
    module, name = order["task"].split(":")
    work = getattr(importlib.import_module(module), name)(order["setup"])
    _confine(order["memory_bytes"])
    pipe.send_bytes(b"null")
    while True:
        try:
            item = json.loads(pipe.recv_bytes())
        except EOFError:
            return
        pipe.send_bytes(json.dumps(_answer(work, item)).encode())


def _answer(work: Callable[[Any], Any], item: Any) -> Any:
    try:
        return work(item)
    except MemoryError:
        return TOO_LARGE
    except Exception as error:
        # The place only: an exception's text may quote a value.
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}"
        return {"reason": "unexpected_error", "place": place}


def _confine(memory_bytes: int) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold the patient's data
    # Decoders print what they dislike, and that may be a value.
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)


if __name__ == "__main__":
    main(int(sys.argv[1]))
