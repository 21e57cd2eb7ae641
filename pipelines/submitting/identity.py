"""What a run is made of: commit, settings, data, and the image that the commit was built into."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from lineage.digest import digest


@dataclass(frozen=True)
class Identity:
    """Names for all that a run is made of; each engine carries them with the run.

    Args:
        pipeline: Its name.
        commit: Of the repository that holds the settings; empty if there is none.
        patch: Digest of the uncommitted work; empty if there is none.
        config: Digest of the settings of all steps, as in a local run's record.
        sources: Digest of the data of each source.
        image: What the steps run in; a rebuilt one is another run.
        request: The request for a retraining that it answers; empty if nobody asked.
    """

    pipeline: str
    commit: str
    patch: str
    config: str
    sources: Mapping[str, str]
    image: str = ""
    request: str = ""

    @property
    def token(self) -> str:
        """The same for the same run."""
        return digest("submission", asdict(self))

    def facts(self) -> dict[str, object]:
        """For the record, the engine's description of the run, and the report."""
        return {**asdict(self), "token": self.token}
