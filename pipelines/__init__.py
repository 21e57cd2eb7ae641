"""What runs, and where. Start with `model_lifecycle.py`.

`from pipelines import load, run` does in Python what the command does; see `notebook/api.py`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.notebook.api import (
        compare,
        find_run,
        lineage,
        load,
        models,
        past_runs,
        plan,
        run,
        watch,
    )

__all__ = [
    "compare",
    "find_run",
    "lineage",
    "load",
    "models",
    "past_runs",
    "plan",
    "run",
    "watch",
]


# The command imports this package each time it starts, and needs none of these.
def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pipelines.notebook import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
