"""What a component promises: the directories it reads and fills, the values it
reports, and what it needs to run. The function's signature is the contract."""

from collections.abc import Callable
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Annotated, Any, get_type_hints

from pydantic import BaseModel

Input = Annotated[Path, "input"]  # a directory (or, for a Source, a file) to read
Output = Annotated[Path, "output"]  # an empty directory to fill

TAKEN = {"config", "values"}  # names that backends use for their own channels


@dataclass(frozen=True, kw_only=True)
class Resources:
    cpu: int = 1
    memory_gib: int = 4
    gpus: int = 0
    timeout_minutes: int = 60


@dataclass(frozen=True, kw_only=True)
class Component:
    name: str
    module: str
    function: Callable[..., Any]
    config_type: type[BaseModel]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    values: dict[str, type]
    resources: Resources
    retries: int
    secrets: tuple[str, ...]
    state: tuple[str, ...]
    receipt: Callable[..., bool] | None
    trains: str | None
    registers: str | None
    identities: bool
    check: Callable[[Any], None] | None

    @property
    def effect(self) -> bool:
        """True for a step whose point is what it does to the outside world."""
        return self.receipt is not None

    @property
    def entry(self) -> str:
        """What `python -m components` calls it: its file there, or MODULE:NAME elsewhere."""
        package, _, file = self.module.partition(".")
        return file if package == "components" else f"{self.module}:{self.name}"

    def __call__(self, config: BaseModel, **directories: Path) -> Any:
        """Run it, right here. Tests and the local backend call components this way."""
        return self.function(config, **directories)


def component(
    *,
    resources: Resources = Resources(),
    retries: int = 0,
    secrets: tuple[str, ...] = (),
    state: tuple[str, ...] = (),
    receipt: Callable[..., bool] | None = None,
    trains: str | None = None,
    registers: str | None = None,
    identities: bool = False,
    check: Callable[[Any], None] | None = None,
) -> Callable[[Callable[..., Any]], Component]:
    """Read the contract off a typed function.

    Args:
        resources: What one run needs; each backend maps it to pods or instance types.
        retries: How often a failed run may be tried again.
        secrets: Workspace secrets it reads; their fingerprints are part of its cache key.
        state: Files of the workspace that it reads and adds to, as glob patterns; a cluster, whose
            jobs start with an empty disk, keeps them between runs.
        receipt: Only for effects. Called with the outputs of an earlier run; True if what
            that run did to the outside world still stands, so that doing it again is needless.
            Must be quick: no heavy imports.
        trains: The output that is a model. SageMaker runs such a step as a training job.
        registers: The input that becomes a registered model. Backends with a registry
            of their own mirror it there.
        identities: It reads data that may name patients, so what libraries say meanwhile, which
            may quote that data, is kept nowhere.
        check: Called with the config before any step of a run is executed, if that config is a
            new one; raises BadInput for what this step would find out much later.
    """

    def declare(function: Callable[..., Any]) -> Component:
        name = function.__name__
        hints = get_type_hints(function, include_extras=True)
        parameters = list(signature(function).parameters)
        returns = hints.get("return", type(None))
        if clash := TAKEN.intersection(parameters[1:]):
            raise TypeError(f"{name}: {clash} cannot name an input or output")
        if strays := [p for p in parameters[1:] if hints[p] not in (Input, Output)]:
            raise TypeError(f"{name}: {strays} must be Input or Output")
        if not Path(function.__globals__.get("__file__", "")).is_file():
            raise TypeError(f"{name}: declare it in a file; a result's key names its code by that")
        return Component(
            name=name,
            module=function.__module__,
            function=function,
            config_type=hints[parameters[0]],
            inputs=tuple(p for p in parameters[1:] if hints[p] == Input),
            outputs=tuple(p for p in parameters[1:] if hints[p] == Output),
            values=dict(getattr(returns, "__annotations__", {})),
            resources=resources,
            retries=retries,
            secrets=secrets,
            state=state,
            receipt=receipt,
            trains=trains,
            registers=registers,
            identities=identities,
            check=check,
        )

    return declare
