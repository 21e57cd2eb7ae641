"""Where a cluster finds the data of a run, and what that data is called."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from imaging.incoming.remote import is_remote
from lineage.errors import BadInput
from lineage.known import Known
from lineage.workspace import Workspace
from pipelines.graph import Pipeline, Source
from pipelines.runs import config_digest
from pipelines.sources import CAPTURED, CHAMPION, resolve
from pipelines.submitting.engine import Engine
from pipelines.submitting.identity import Identity
from pipelines.submitting.work import Work


@dataclass(frozen=True)
class Place:
    """A source, as a run on a cluster gets it."""

    source: str
    content: str  # its digest
    uri: str = ""  # where it lies already
    path: Path | None = None  # else where it lies on this machine


def places(
    pipeline: Pipeline,
    engine: Engine,
    workspace: Workspace,
    *,
    upload: bool,
    standing: bool = False,
) -> list[Place]:
    """Find each source; nothing is sent yet.

    Args:
        pipeline: What reads them.
        engine: Where it is to run.
        workspace: Holds champions and captured traffic.
        upload: Files of this machine may be sent as they are. They may hold identities, so that
            this is for a person to say; what the registry holds is without them.
        standing: The place must serve later runs too, so that what grows on this machine is no use.

    Raises:
        BadInput: There is no such data, or it may not be sent.
    """
    found = []
    for source in pipeline.sources():
        uri = engine.given.get(source.name, source.uri)
        if source.uri.partition(":")[0] in CHAMPION and uri != source.uri:
            # At one fixed place lies yesterday's champion, or none: a gate that always passes.
            raise BadInput(
                f"sources.{source.name} of the environment names a place, but the champion is "
                "looked up at each submit; remove that line"
            )
        if uri.startswith(tuple(f"{scheme}://" for scheme in engine.schemes)):
            found.append(Place(source.name, engine.content(uri), uri=uri))
            continue
        if is_remote(uri):
            there = uri.partition("://")[0]
            raise BadInput(
                f"sources.{source.name}: {engine.name} does not read {there}://…, only "
                f"{_schemes(engine)}; `lightbox fetch ADDRESS FOLDER` brings it here, and "
                "--upload-sources sends that folder"
            )
        scheme = uri.partition(":")[0]
        if standing and scheme not in CHAMPION:
            raise BadInput(
                f"sources.{source.name}: {engine.name} starts what is scheduled by itself, and "
                f"cannot read this machine; name a place that it reaches ({_schemes(engine)}) "
                "under sources: of the environment"
            )
        if scheme not in (*CHAMPION, CAPTURED) and not upload:
            raise BadInput(
                f"sources.{source.name} lies on this machine and may hold identities; say "
                "--upload-sources to send it to the environment's bucket, or name a place that the "
                f"cluster reaches ({_schemes(engine)}) under sources: of the environment"
            )
        path = resolve(Source(source.name, uri), workspace)
        content = Known(workspace.store / "known").tree_digest(path)
        found.append(Place(source.name, content, path=path))
    return found


def identified(
    pipeline: Pipeline, engine: Engine, work: Work, found: list[Place], request: str = ""
) -> Identity:
    """What a run that reads these places is made of."""
    return Identity(
        pipeline=pipeline.name,
        commit=work.commit,
        patch=work.patch_digest,
        config=config_digest(pipeline),
        image=engine.image,
        sources={place.source: place.content for place in found},
        request=request,
    )


def sent(found: list[Place], engine: Engine) -> Mapping[str, str]:
    """The URI of each source, after what lies on this machine was uploaded."""
    return {
        place.source: place.uri if place.path is None else engine.upload(place.path, place.content)
        for place in found
    }


def _schemes(engine: Engine) -> str:
    return ", ".join(f"{scheme}://…" for scheme in engine.schemes)
