"""What runs, and where. Start with `model_lifecycle.py`.

In Python, `from pipelines import load, run` does what `lightbox run` does; see `pipelines.api`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.api import (
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
    from pipelines import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
