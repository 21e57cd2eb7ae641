"""Settings of a release: how traffic moves to the challenger, and what stops it."""

from pydantic import BaseModel, ConfigDict, Field, field_validator

TOKEN = "endpoint.token"  # noqa: S105  the name of a workspace secret, not one
ENDPOINT_URL = "LIGHTBOX_ENDPOINT_URL"  # says where a service is, to jobs that end


class DeploymentConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    # The walk. Each share is held until the challenger has answered `requests_per_step` requests.
    steps: tuple[float, ...] = (0.1, 0.5, 1.0)
    requests_per_step: int = Field(default=35, ge=5)
    rate_per_s: float = Field(default=100.0, gt=0)
    senders: int = Field(default=4, ge=1, le=32)
    # How often the last step may ask for as many requests again before it gives up undecided.
    extensions: int = Field(default=3, ge=0)
    timeout_s: float = Field(default=5.0, gt=0)  # a slower answer is an error

    # The judgement; see serving/judgement.py. A healthy challenger fails with this chance at most,
    # over all looks and checks together.
    false_rollback: float = Field(default=0.02, gt=0, lt=0.5)
    error_margin: float = Field(default=0.10, gt=0, lt=1)  # more errors than the champion
    latency_ratio: float = Field(default=1.5, gt=1)  # of typical latencies
    latency_slack_ms: float = Field(default=10.0, ge=0)  # below this nobody notices
    score_shift: float = Field(default=0.5, gt=0, le=1)  # Kolmogorov-Smirnov distance
    flag_shift: float = Field(default=0.25, gt=0, le=1)  # share of studies called positive
    score_tolerance: float = Field(default=1e-4, gt=0)  # served against offline score

    # The endpoint on this machine.
    idle_timeout_minutes: float = Field(default=30.0, gt=0)
    startup_timeout_s: float = Field(default=120.0, gt=0)

    @field_validator("steps")
    @classmethod
    def _rising_to_one(cls, steps: tuple[float, ...]) -> tuple[float, ...]:
        rising = all(a < b for a, b in zip((0.0, *steps), steps, strict=False))
        if not steps or not rising or steps[-1] != 1:
            raise ValueError("shares must rise from above 0 to exactly 1, such as [0.1, 0.5, 1.0]")
        return steps
