import pytest
from toys import Settings, announce, judge, read

from pipelines.graph import Fail, GraphError, Pipeline, Source, Step, When

CONFIG = Settings(journal="/dev/null")
SOURCE = Source("source", "somewhere")


def chain() -> tuple[Step, Step]:
    first = Step(read, CONFIG, source=SOURCE)
    return first, Step(judge, CONFIG, words=first["words"])


def test_a_mistyped_output_is_told_with_the_known_ones() -> None:
    first, _ = chain()
    with pytest.raises(GraphError, match=r"read has no output 'wrods'; it has \['words'\]"):
        first["wrods"]


def test_a_missing_input_is_refused() -> None:
    with pytest.raises(GraphError, match="read takes"):
        Step(read, CONFIG)


def test_a_value_cannot_be_wired_as_a_directory() -> None:
    _, second = chain()
    with pytest.raises(GraphError, match="is a value"):
        Step(announce, CONFIG, verdict=second["passed"])


def test_reading_before_running_is_refused() -> None:
    first, second = chain()
    with pytest.raises(GraphError, match="read before it has run"):
        Pipeline("p", [second, first])


def test_a_step_inside_a_branch_is_not_seen_outside() -> None:
    first, second = chain()
    inner = Step(read, CONFIG, "inner", source=SOURCE)
    outer = Step(judge, CONFIG, "outer", words=inner["words"])
    with pytest.raises(GraphError, match="inner is read before"):
        Pipeline("p", [first, second, When(second["passed"], [inner]), outer])


def test_only_a_bool_guards_and_only_a_text_is_a_reason() -> None:
    _, second = chain()
    with pytest.raises(GraphError, match="not a bool"):
        When(second["reason"], [])
    with pytest.raises(GraphError, match="not a str"):
        Fail("refused", second["passed"], 3)


def test_one_component_twice_needs_two_names() -> None:
    first, _ = chain()
    again = Step(read, CONFIG, source=SOURCE)
    with pytest.raises(GraphError, match="two steps are named"):
        Pipeline("p", [first, again])
    renamed = Step(read, CONFIG, "again", source=SOURCE)
    assert [s.name for s in Pipeline("p", [first, renamed]).steps()] == ["read", "again"]


def test_two_places_under_one_source_name_are_refused() -> None:
    first, _ = chain()
    other = Step(read, CONFIG, "other", source=Source("source", "elsewhere"))
    with pytest.raises(GraphError, match="share a name"):
        Pipeline("p", [first, other])
