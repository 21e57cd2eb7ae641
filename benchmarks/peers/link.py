"""The work of one step, the same for every tool: read the previous text, write a longer one.

Each execution leaves its number in a journal beside the texts, so that the benchmark counts
what really ran instead of believing a tool's word.
"""

from pathlib import Path

STEPS = 10


def link(before: str, number: int) -> str:
    """Write `<number>.txt` beside the text before it, one line longer; give its path."""
    folder = Path(before).parent
    after = folder / f"{number}.txt"
    after.write_text(Path(before).read_text() + f"{number}\n")
    with (folder / "journal").open("a") as journal:
        journal.write(f"{number}\n")
    return str(after)
