"""Progress of long work: told to whoever listens; if nobody does, a bar in a terminal, and a
line now and then anywhere else."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

from lineage.progress import Report

ENOUGH_S = 2.0  # of watching before a time left is told: the first reports may be slow or quick


@dataclass
class Work:
    """A piece of long work, and how far it has come. Times are seconds of `time.monotonic`."""

    title: str
    done: int = 0
    total: int = 0  # 0: nobody knows
    note: str = ""
    ended: bool = False
    started: float = field(default_factory=lambda: time.monotonic())
    # The pace is taken from the first report on: before it, libraries are imported.
    first: tuple[int, float] | None = None
    latest: float = 0.0

    def advance(self, done: int, total: int, note: str) -> None:
        """Take in a report; a smaller `done` or another `total` is another round of work."""
        self.latest = time.monotonic()
        if self.first is None or done < self.done or total != self.total:
            self.first = (done, self.latest)
        self.done, self.total, self.note = done, total, note

    @property
    def rate(self) -> float | None:
        """Items per second, or None as long as nobody can know."""
        if self.first is None or self.done == self.first[0] or self.latest == self.first[1]:
            return None
        return (self.done - self.first[0]) / (self.latest - self.first[1])

    @property
    def seconds_left(self) -> float | None:
        """How long it will take from now on if the pace stays, or None if nobody can know yet."""
        if not self.rate or not self.first or self.total < self.done:
            return None
        if self.latest - self.first[1] < ENOUGH_S:
            return None
        since = time.monotonic() - self.latest
        return max(0.0, (self.total - self.done) / self.rate - since)


Listener = Callable[[Work], None]  # called when work starts, goes on and ends: must be quick
_listeners: list[Listener] = []


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Let a function hear of all work of this process, whichever thread does it."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


@contextmanager
def progress(title: str) -> Iterator[Report]:
    """Yield a function that tells how far the work has come; science code just calls it."""
    work = Work(title)

    def tell() -> None:
        for listener in tuple(_listeners):
            listener(work)

    def report(done: int, total: int, note: str) -> None:
        work.advance(done, total, note)
        tell()

    with nullcontext() if _listeners else _alone():
        tell()
        try:
            yield report
        finally:
            work.ended = True
            tell()


@contextmanager
def _alone() -> Iterator[None]:
    """Listen ourselves."""
    if not sys.stderr.isatty():
        with listening(now_and_then(lambda line: print(f"  {line}", file=sys.stderr, flush=True))):
            yield
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    told, pace = TextColumn("  {task.description}"), TextColumn("{task.fields[pace]}")
    columns = (told, BarColumn(), MofNCompleteColumn(), pace)
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None, pace="")

        def hear(work: Work) -> None:
            _, *words = in_words(work)
            bar.update(
                task,
                description=work.title,
                completed=work.done,
                total=work.total or None,
                pace="  ".join(words),
            )

        with listening(hear):
            yield


def now_and_then(write: Callable[[str], None], at_least_s: float = 5.0) -> Listener:
    """A listener that writes a line every few seconds, and more seldom the longer it takes."""
    heard: Work | None = None
    due = 0.0

    def hear(work: Work) -> None:
        nonlocal heard, due
        now = time.monotonic()
        if work is not heard:
            heard, due = work, now + at_least_s
        elif now >= due and not work.ended:
            due = now + max(at_least_s, (now - work.started) / 5)
            write("  ".join((work.title, *in_words(work))))

    return hear


def in_words(work: Work) -> list[str]:
    """How far it has come, how fast it goes, how long it will take, and its note."""
    words = [f"{work.done}/{work.total}" if work.total else f"{work.done}"]
    if rate := work.rate:
        words.append(f"{rate:.3g}/s" if rate >= 1 else f"{duration(1 / rate)} each")
    if (left := work.seconds_left) is not None:
        words.append(f"{duration(left, 0)} left")
    return [*words, work.note] if work.note else words


def duration(seconds: float, digits: int = 1) -> str:
    """A time as people say it: 0.4 s, 12 s, 3 min 05 s, 2 h 10 min.

    Args:
        seconds: How long.
        digits: Digits behind the point of a time under ten seconds.
    """
    if seconds < 9.95:
        return f"{seconds:.{digits}f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes_of_hour = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes_of_hour:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
