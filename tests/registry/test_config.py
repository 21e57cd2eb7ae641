import pytest
from pydantic import ValidationError

from registry.config import Policy, PromotionConfig, RegistrationConfig


@pytest.mark.parametrize("name", ["", "a:1", "it's", "../x", "a b", "-x"])
def test_a_name_that_mlflow_or_a_shell_would_trip_over_is_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        RegistrationConfig(name=name)


def test_a_person_approves_unless_a_policy_is_named() -> None:
    assert PromotionConfig().approver == "manual"
    assert PromotionConfig(approver="policy", policy=Policy(name="demo")).policy is not None
    for half in ({"approver": "policy"}, {"policy": {"name": "demo"}}):
        with pytest.raises(ValidationError, match="go together"):
            PromotionConfig.model_validate(half)


def test_no_policy_can_let_a_failed_model_pass() -> None:
    with pytest.raises(ValidationError):
        Policy.model_validate({"name": "demo", "require_outcome": "fail"})
