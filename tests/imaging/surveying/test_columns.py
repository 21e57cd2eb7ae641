import pytest

from imaging.surveying.columns import describe, differ_by_spelling, two_classes


@pytest.mark.parametrize(
    ("name", "values", "role"),
    [
        ("patient_id", ["P1", "P2"], "patient"),
        ("PatientID", ["1", "2"], "patient"),
        ("PatientName", [f"Quernstein^{i}" for i in range(30)], "identity"),
        ("who", ["Quernstein^Adalbert", "Otto^Eva", "Muller^Max"], "identity"),
        ("birth_date", [f"19{i}0101" for i in range(10, 40)], "identity"),
        ("Gender", ["female", "Male", "unknown"], "sex"),
        ("sex", ["3", "4"], ""),
        ("age", ["61", "61,5", "n/a"], "age"),
        ("image", ["1", "2"], ""),
        ("device_group", ["A", "B"], "scanner"),
        ("hospital", ["A", "B"], "site"),
        ("fold", ["1", "2"], "split"),
        ("Diagnosis", ["a", "b"], "label"),
        ("class_name", ["cat", "dog"], "label"),
        ("split", ["", " ", "n/a"], "empty"),
    ],
)
def test_a_column_s_role_is_told_by_its_name_and_its_content(
    name: str, values: list[str], role: str
) -> None:
    assert describe(name, values).role == role


def test_words_for_nothing_are_no_values() -> None:
    column = describe("x", ["a", " ", "Unknown", "b", "a ", "nan"])
    assert (column.filled, column.distinct) == (3, 2)


@pytest.mark.parametrize(
    ("values", "classes"),
    [
        (["yes", "no"], ("no", "yes")),
        (["1", "0", "", "NA"], ("0", "1")),
        (["Malignant", "Benign"], ("Benign", "Malignant")),
        (["COVID", "non-COVID"], ("non-COVID", "COVID")),
        (["t", "f"], ("f", "t")),
        (["pneumonia", "Normal", "unknown"], ("Normal", "pneumonia")),
        (["True", "False"], ("False", "True")),
    ],
)
def test_the_negative_class_comes_first(values: list[str], classes: tuple[str, str]) -> None:
    assert two_classes(values) == (*classes, "by its meaning")


def test_without_a_meaning_the_alphabet_decides_and_says_so() -> None:
    found = two_classes(["PA", "AP"])
    assert found is not None
    assert found[:2] == ("AP", "PA")
    assert "alphabet" in found[2]
    assert two_classes(["a"]) is None
    assert two_classes(["a", "b", "c"]) is None
    assert two_classes(["PA", "pa"]) is None


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (["PA", "AP", "pa ", "unknown"], "'PA' and 'pa' differ only by case or spaces"),
        (["no", "No", "a  b", "a b"], "'No' and 'no', 'a  b' and 'a b' differ only by"),
        (["PA", "AP"], None),
        (["PA", "pa", "AP", "LL"], None),
    ],
)
def test_what_spelling_alone_makes_more_than_two_classes(
    values: list[str], told: str | None
) -> None:
    found = differ_by_spelling(values)
    assert found == told or (told and found and found.startswith(told))
