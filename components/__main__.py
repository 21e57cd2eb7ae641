"""`python -m components`: the entrypoint of the image, the same on every engine.

NAME [flags]         run a component of this package; the flags are those of `runtime.main`
MODULE:NAME [flags]  run one that lives elsewhere
train                as SageMaker starts a training job: LIGHTBOX_STEP says which component,
                     and data, config and model lie in fixed places
serve                as SageMaker starts an endpoint's container: answer for /opt/ml/model
"""

import os
import sys
from importlib import import_module
from pathlib import Path

from components.contract import Component

ML = Path("/opt/ml")


def main(argv: list[str]) -> None:
    """Run what the words ask for; see the top of this file."""
    match argv:
        case [] | ["-h" | "--help"]:
            print(__doc__)
        case ["serve", *rest]:
            from serving import hosted

            hosted.main(rest)
        case ["train"] if step := os.environ.get("LIGHTBOX_STEP"):
            chosen = _component(step)
            _run(chosen, _training_flags(chosen))
        case [name, *flags]:
            _run(_component(name), flags)


def _run(component: Component, flags: list[str]) -> None:
    from components import runtime

    runtime.main(component, flags)


def _component(entry: str) -> Component:
    module, _, name = entry.rpartition(":")
    module = module or f"components.{name}"
    try:
        found = getattr(import_module(module), name, None)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        found = None
    if not isinstance(found, Component):
        print(f"{entry} is no component; `python -m components --help`", file=sys.stderr)
        sys.exit(2)
    return found


def _training_flags(component: Component) -> list[str]:
    """SageMaker's places, as the flags that every other engine passes."""
    data = ML / "input" / "data"
    flags = ["--config", f"{data}/config/config.json"]
    for name in component.inputs:
        flags += ["--input", f"{name}={data}/{name}"]
    # What lies under output/data comes back as output.tar.gz; nothing may hang on it.
    flags += ["--values-json", f"{ML}/output/data/values.json"]
    return [*flags, "--output", f"{component.trains}={ML}/model"]


if __name__ == "__main__":
    main(sys.argv[1:])
