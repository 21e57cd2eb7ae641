"""Five cron fields, as people write them, in the words of each engine. Times are UTC."""

import re
from itertools import pairwise

from lineage.errors import BadInput

FIELDS = ("minute", "hour", "day", "month", "weekday")
BOUNDS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
WEEKDAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")


def fields(text: str) -> list[str]:
    """The five fields: `*`, numbers, lists, ranges and steps.

    Raises:
        BadInput: It is something else; engines would say so at the first start that never comes.
    """
    found = text.split()
    if len(found) != len(FIELDS):
        raise BadInput(f"--cron: {text!r} has {len(found)} fields; write {' '.join(FIELDS)}")
    for name, bounds, field in zip(FIELDS, BOUNDS, found, strict=True):
        for part in field.split(","):
            match = re.fullmatch(r"(?:\*|(\d+)(?:-(\d+))?)(?:/([1-9]\d*))?", part)
            numbers = [int(n) for n in match.groups()[:2] if n] if match else []
            inside = all(bounds[0] <= n <= bounds[1] for n in numbers)
            if not match or not inside or any(a > b for a, b in pairwise(numbers)):
                raise BadInput(
                    f"--cron: the {name} {field!r} is no *, number, list, range or step within "
                    f"{bounds[0]} to {bounds[1]}"
                )
    return found


def for_kubeflow(text: str) -> str:
    """Six fields: seconds come first, and the weekday 7 is unknown."""
    *others, weekday = fields(text)
    return " ".join(("0", *others, _weekdays(weekday)))


def for_eventbridge(text: str) -> str:
    """`cron(…)`, where a day of the month and a weekday exclude each other, and one is `?`.

    Raises:
        BadInput: Both are given.
    """
    minute, hour, day, month, weekday = fields(text)
    if day != "*" and weekday != "*":
        raise BadInput("--cron: EventBridge takes a day of the month or a weekday, not both")
    if weekday != "*":
        day = "?"
    weekday = "?" if weekday == "*" else _weekdays(weekday)
    return f"cron({minute} {hour} {day} {month} {weekday} *)"


def _weekdays(field: str) -> str:
    """By name: engines count them from 0 or from 1."""
    if field.startswith("*") and "," not in field:
        return field if field == "*" else _listed(range(0, 7, int(field.partition("/")[2])))
    days: set[int] = set()
    for part in field.split(","):
        span, _, step = part.partition("/")
        low, _, high = span.partition("-")
        if low == "*":
            low, high = "0", "6"
        days |= set(range(int(low), int(high or ("6" if step else low)) + 1, int(step or 1)))
    return _listed(sorted({day % 7 for day in days}))


def _listed(days: range | list[int]) -> str:
    return ",".join(WEEKDAYS[day] for day in days)
