"""Settings of registration and promotion."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

# What MLflow's search strings, file names and `name:version` all take without quoting.
MODEL_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"


class RegistrationConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=MODEL_NAME)  # of the registered model; its versions are counted


class Policy(BaseModel):
    """Conditions under which a rule approves in a person's stead, as the actor `policy:<name>`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=MODEL_NAME)
    require_outcome: Literal["pass"] = "pass"  # of the gate; nothing else can be approved
    min_patients: int = Field(default=0, ge=0)  # in the test split


class PromotionConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    approver: Literal["manual", "policy"] = "manual"
    policy: Policy | None = None

    @model_validator(mode="after")
    def _policy_iff_approver(self) -> "PromotionConfig":
        if (self.approver == "policy") != (self.policy is not None):
            raise ValueError("approver: policy and a policy section go together")
        return self
