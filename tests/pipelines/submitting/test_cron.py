from datetime import datetime

import pytest

from lineage.errors import BadInput
from pipelines.submitting.cron import for_eventbridge, for_kubeflow


@pytest.mark.parametrize(
    ("text", "kubeflow", "eventbridge"),
    [
        ("0 2 * * *", "0 0 2 * * *", "cron(0 2 * * ? *)"),
        ("*/15 8-18 * * 1-5", "0 */15 8-18 * * MON,TUE,WED,THU,FRI", None),
        ("30 1 1 * *", "0 30 1 1 * *", "cron(30 1 1 * ? *)"),
        ("0 0 * 1,7 0", "0 0 0 * 1,7 SUN", "cron(0 0 ? 1,7 SUN *)"),
        ("0 0 * * 7", "0 0 0 * * SUN", "cron(0 0 ? * SUN *)"),
        ("0 0 * * 5-7", "0 0 0 * * SUN,FRI,SAT", "cron(0 0 ? * SUN,FRI,SAT *)"),
        ("0 0 * * */2", "0 0 0 * * SUN,TUE,THU,SAT", "cron(0 0 ? * SUN,TUE,THU,SAT *)"),
    ],
)
def test_each_engine_s_words(text, kubeflow, eventbridge) -> None:
    assert for_kubeflow(text) == kubeflow
    assert for_eventbridge(text) == eventbridge or eventbridge is None


@pytest.mark.parametrize(
    "text",
    [
        *("", "0 2 * *", "0 2 * * * *", "60 2 * * *", "0 24 * * *", "0 0 0 * *", "0 0 * 13 *"),
        *("0 0 * * 8", "a 0 * * *", "5-2 0 * * *", "*/0 0 * * *", "0 0 * * MON", "0 0 ? * *"),
    ],
)
def test_what_no_engine_would_start(text) -> None:
    for words in (for_kubeflow, for_eventbridge):
        with pytest.raises(BadInput, match="--cron"):
            words(text)


def test_a_day_and_a_weekday() -> None:
    assert for_kubeflow("0 0 1 * 1") == "0 0 0 1 * MON"
    with pytest.raises(BadInput, match="not both"):
        for_eventbridge("0 0 1 * 1")


@pytest.mark.parametrize("day", range(7))
def test_a_weekday_is_the_day_that_cron_means(day) -> None:
    # 2026-11-01 is a Sunday, cron's 0.
    name = datetime(2026, 11, 1 + day).strftime("%a").upper()
    assert for_kubeflow(f"0 0 * * {day}").split()[-1] == name
