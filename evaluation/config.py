"""Settings of evaluation and of the gate: what is measured, and what is demanded of it."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def _no_switch(value: Any) -> Any:
    """YAML reads `no` and `off` as false, which would count as 0: a bound that all models pass."""
    if isinstance(value, bool):
        raise ValueError("a number is wanted here, not yes, no, on or off")
    return value


Grouping = Literal["sex", "age_band", "scanner"]
Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False), BeforeValidator(_no_switch)]
Number = Annotated[int, Field(ge=1), BeforeValidator(_no_switch)]


class EvaluationConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    subgroups: tuple[Grouping, ...] = ("sex", "age_band", "scanner")
    # In a subgroup, fewer patients than this behind a number (of each class, for the AUROC)
    # and the number is not given at all.
    subgroup_minimum: int = Field(default=10, ge=2)
    calibration_bins: int = Field(default=10, ge=1)
    bootstrap_repetitions: int = Field(default=2000, ge=200)
    seed: int = Field(default=0, ge=0)


class LowerBound(BaseModel):
    """The whole interval of a metric lies at or above a bound."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rule: Literal["lower_bound"] = "lower_bound"
    metric: Literal["auroc", "sensitivity", "specificity"]
    at_least: Fraction


class UpperBound(BaseModel):
    """The whole interval of a metric that should be small lies at or below a bound."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rule: Literal["upper_bound"] = "upper_bound"
    metric: Literal["expected_calibration_error"] = "expected_calibration_error"
    at_most: Fraction


class MinimumN(BaseModel):
    """Enough was looked at: patients, and images of each class. Too few is never a fail."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rule: Literal["minimum_n"] = "minimum_n"
    patients: Number = 50
    positives: Number = 20
    negatives: Number = 20


class NotWorseThanChampion(BaseModel):
    """Non-inferiority on the same patients: candidate minus champion stays above -margin."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rule: Literal["not_worse_than_champion"] = "not_worse_than_champion"
    metric: Literal["auroc"] = "auroc"
    margin: Fraction


class SubgroupLowerBound(BaseModel):
    """`LowerBound` in every subgroup; `on_small` says what a subgroup too small to judge does."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rule: Literal["subgroup_lower_bound"] = "subgroup_lower_bound"
    by: Grouping
    metric: Literal["auroc", "sensitivity", "specificity"]
    at_least: Fraction
    minimum_n: Number = 20  # patients
    on_small: Literal["inconclusive", "report"] = "inconclusive"


Rule = Annotated[
    LowerBound | UpperBound | MinimumN | NotWorseThanChampion | SubgroupLowerBound,
    Field(discriminator="rule"),
]


class GatingConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    rules: tuple[Rule, ...] = (
        MinimumN(),
        LowerBound(metric="auroc", at_least=0.80),
        NotWorseThanChampion(margin=0.03),
    )
