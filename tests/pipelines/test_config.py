import re
from pathlib import Path

import pytest
import yaml

from lineage.errors import BadInput
from pipelines.config import LifecycleConfig, load
from pipelines.settings import placed

ROOT = Path(__file__).resolve().parents[2]
VALID = """\
sources: {scans: in, labels: in.csv}
ingestion:
  labels: {key: file, key_column: image, column: view, classes: [PA, AP]}
training:
  network: {name: DenseNet121}
  preprocess: []
  learning_rate: 0.01
registration: {name: view}
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "task.yaml"
    path.write_text(text)
    return path


def message(tmp_path: Path, text: str, *overrides: str) -> str:
    with pytest.raises(BadInput) as error:
        load(write(tmp_path, text), overrides)
    return str(error.value)


def test_a_file_names_only_what_differs(tmp_path) -> None:
    config = load(write(tmp_path, VALID))
    assert config.training.learning_rate == 0.01
    assert (
        config.training.batch_size
        == LifecycleConfig.model_validate(yaml.safe_load(VALID)).training.batch_size
    )


def test_a_typo_names_file_line_and_the_nearest_key(tmp_path) -> None:
    text = VALID.replace("learning_rate", "lerning_rate")
    told = message(tmp_path, text)
    assert told.endswith(
        "task.yaml:7: training.lerning_rate is not a setting; did you mean 'learning_rate'?"
    )


def test_a_typo_deep_inside_is_found_too(tmp_path) -> None:
    told = message(tmp_path, VALID.replace("key_column", "key_colum"))
    assert "task.yaml:3: ingestion.labels.key_colum is not a setting" in told
    assert "did you mean 'key_column'?" in told


def test_a_key_like_none_lists_the_known_ones(tmp_path) -> None:
    told = message(tmp_path, VALID + "zzz: 1\n")
    assert "task.yaml:9: zzz is not a setting; known here: sources, ingestion" in told


def test_a_missing_section_and_a_wrong_type_are_told_together(tmp_path) -> None:
    text = VALID.replace("registration: {name: view}\n", "").replace("0.01", "fast")
    told = message(tmp_path, text).splitlines()
    assert any("registration is missing" in line for line in told)
    assert any("task.yaml:7: training.learning_rate" in line for line in told)


def test_a_rule_with_a_typo_names_the_rule_s_own_keys(tmp_path) -> None:
    text = VALID + "gating:\n  rules:\n    - {rule: lower_bound, metric: auroc, at_last: 0.8}\n"
    told = message(tmp_path, text)
    assert "task.yaml:11:" in told
    assert "did you mean 'at_least'?" in told


def test_a_key_given_twice_is_refused(tmp_path) -> None:
    assert "task.yaml:9: registration is given twice" in message(
        tmp_path, VALID + "registration: {name: other}\n"
    )


def test_broken_yaml_names_the_line(tmp_path) -> None:
    assert "task.yaml:2:" in message(tmp_path, "sources: {scans: in\ntraining: [\n")


def test_a_missing_file_is_one_sentence(tmp_path) -> None:
    with pytest.raises(BadInput, match=r"nothing\.yaml: cannot be read \(No such file"):
        load(tmp_path / "nothing.yaml")


def test_overrides_win_and_are_named_when_wrong(tmp_path) -> None:
    path = write(tmp_path, VALID)
    assert load(path, ["training.seed=5"]).training.seed == 5
    assert load(path, ["gating.rules=[]"]).gating.rules == ()
    with pytest.raises(BadInput, match=r"--set: training\.sed is not a setting.*'seed'"):
        load(path, ["training.sed=5"])
    with pytest.raises(BadInput, match=r"write section\.key=value"):
        load(path, ["training.seed"])


def test_classes_are_said_once_and_a_second_order_is_refused(tmp_path) -> None:
    assert load(write(tmp_path, VALID)).training.classes == ("PA", "AP")
    swapped = VALID.replace("  preprocess: []", "  classes: [AP, PA]\n  preprocess: []")
    told = "task.yaml:6: training.classes is not ingestion.labels.classes"
    assert told in message(tmp_path, swapped)


def test_the_environment_fills_places_and_a_missing_one_is_named(tmp_path, monkeypatch) -> None:
    text = VALID.replace("scans: in,", "scans: '${SCANS}/x-${DAY:-monday}',")
    path = write(tmp_path, text)
    monkeypatch.setenv("SCANS", "/data")
    assert load(path).sources.scans == "/data/x-monday"
    monkeypatch.delenv("SCANS")
    with pytest.raises(BadInput, match="set the environment variable SCANS"):
        load(path)


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda p: p.name)
def test_shipped_files_load(path: Path) -> None:
    load(path)


def test_what_a_step_says_of_a_setting_gets_its_line(tmp_path) -> None:
    path = write(tmp_path, VALID)
    told = "training.network.name: there is no DenseNet122"
    assert placed(path, (), told) == f"{path}:5: {told}"
    assert placed(path, ("training.network.name=DenseNet122",), told) == f"--set: {told}"
    assert placed(path, ("training.network={name: X}",), told) == f"--set: {told}"
    for other in ("3 rows fail", "mlflow.db is empty: restore it"):
        assert placed(path, (), other) == other
    # A default has no line of its own: the nearest section is where to put another.
    assert placed(path, (), "training.augment: no") == f"{path}:4: training.augment: no"
    # Below what was set from outside all comes from there; above it, from both.
    deeper = "training.network.args: DenseNet121 does not take these"
    assert placed(path, ("training.network={name: X}",), deeper) == f"--set: {deeper}"
    both = placed(path, ("training.network.args.layers=3",), deeper)
    assert both == f"{path}:5 with --set: {deeper}"


ARGS = VALID.replace("DenseNet121", "DenseNet121, args: {x: VALUE}")


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (".inf", "training.network.args.x: expected a finite number"),
        (".nan", "training.network.args.x: expected a finite number"),
        ("[0, -.inf]", "training.network.args.x.1: expected a finite number"),
        ("{1: a}", "training.network.args.x.1: this name is not text; put it in quotes"),
        ("{yes: a}", "training.network.args.x.True: this name is not text; put it in quotes"),
        ("2024-01-01", "training.network.args.x: YAML reads this as a date"),
        ("2024-01-01 10:00:00", "training.network.args.x: YAML reads this as a datetime"),
        ("!!binary aGk=", "training.network.args.x: YAML reads this as a bytes"),
        ("!!set {a}", "training.network.args.x: YAML reads this as a set"),
        ("!!pairs [a: 1]", "training.network.args.x.0: YAML reads this as a tuple"),
    ],
)
def test_what_json_would_spell_like_something_else_is_refused(tmp_path, value, told) -> None:
    """Two settings that differ must never share the key under which a result is found."""
    assert f"task.yaml:5: {told}" in message(tmp_path, ARGS.replace("VALUE", value))
    override = f"training.network.args.x={value}"
    assert message(tmp_path, VALID, override).startswith(f"--set: {told}")


def test_a_mistake_in_what_is_copied_is_told_once(tmp_path) -> None:
    wrong = VALID.replace("key: file", "key: files")
    assert message(tmp_path, wrong).count("labels.key: expected") == 1
    assert message(tmp_path, VALID, "ingestion.deidentification.dates=moved").count("\n") == 0
    both = VALID + "validation: {near_duplicate_bits: a}\nsplitting: {near_duplicate_bits: a}\n"
    assert message(tmp_path, both).count("near_duplicate_bits: expected") == 2
    own = wrong + "retraining: {labels: {key: files}}\n"
    assert message(tmp_path, own).count("labels.key: expected") == 2


def test_a_date_needs_no_quotes_where_a_setting_is_one(tmp_path) -> None:
    page = ROOT / "docs" / "splits.md"
    example = page.read_text().partition("```yaml\n")[2].partition("```")[0]
    quoted = re.sub(r"(\d{4}-\d\d-\d\d)", r"'\1'", example)
    assert quoted != example
    assert load(write(tmp_path, VALID + example)) == load(write(tmp_path, VALID + quoted))
    at_noon = message(tmp_path, VALID + example.replace("01-01", "01-01 12:00:00"))
    assert "splitting.test_from: YAML reads this as a datetime" in at_noon


@pytest.mark.parametrize("value", [".inf", "inf", "'nan'"])
def test_a_setting_that_is_no_number_in_the_end_is_refused(tmp_path, value) -> None:
    override = f"training.learning_rate={value}"
    assert message(tmp_path, VALID, override).startswith("--set: training.learning_rate: expected")
    assert "task.yaml:7: training.learning_rate: expected" in message(
        tmp_path, VALID.replace("0.01", value)
    )


@pytest.mark.parametrize("value", ["&a [*a]", "[" * 2000 + "]" * 2000])
def test_a_value_within_itself_is_refused(tmp_path, value) -> None:
    assert "nested too deeply, or within itself" in message(tmp_path, ARGS.replace("VALUE", value))
    assert "nested too deeply" in message(tmp_path, VALID, f"training.network.args.x={value}")


def test_aliases_of_aliases_are_refused_before_they_are_followed(tmp_path) -> None:
    lines = [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10)]
    bomb = "\n".join(["a0: &a0 [x]", *lines, "registration: {name: *a9}"])
    assert "more than 100,000 values" in message(tmp_path, bomb)


def test_a_day_that_never_was_is_bad_input(tmp_path) -> None:
    assert "day is out of range" in message(tmp_path, ARGS.replace("VALUE", "2024-02-30"))
    assert "the value is not YAML" in message(tmp_path, VALID, "sources.scans=2024-02-30")


@pytest.mark.parametrize(
    ("written", "instead", "told"),
    [
        ("  learning_rate", "   learning_rate", "indented otherwise than the lines beside it"),
        ("  learning_rate", " learning_rate", "indented otherwise than the lines beside it"),
        ("  learning_rate", "\tlearning_rate", "a tab; YAML wants spaces"),
        ("learning_rate: ", "learning_rate: a: ", "a second colon in a line"),
        ("0.01", "'0.01", "a quote is not closed"),
        ("[PA, AP]", "[PA, AP", "a bracket is not closed"),
    ],
)
def test_mistakes_in_yaml_are_told_in_plain_words(tmp_path, written, instead, told) -> None:
    assert told in message(tmp_path, VALID.replace(written, instead))


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("training.max_epochs=many", "training.max_epochs: expected a whole number"),
        ("training.max_epochs=1.5", "training.max_epochs: expected a whole number"),
        ("training.max_epochs=0", "training.max_epochs: expected 1 or more"),
        ("training.learning_rate=0", "training.learning_rate: expected more than 0"),
        ("training.learning_rate=fast", "training.learning_rate: expected a number"),
        ("training.device=gpu", "training.device: expected 'auto', 'cpu' or 'cuda'"),
        ("training.network=X", "training.network: expected names and values such as {a: 1}"),
        ("training.preprocess=X", "training.preprocess: expected a list such as [a, b]"),
        ("training.experiment=''", "training.experiment: expected text of 1 or more characters"),
        ("training.experiment=1", "training.experiment: expected text; put it in quotes"),
        ("training.classes=[a, b, c]", "training.classes: expected no more than 2 items"),
        (
            "registration.name='-'",
            "registration.name: expected up to 100 letters A to Z or a to z, digits, dots, hyphens "
            "and underscores, a letter or digit first",
        ),
        (
            "gating.rules=[{rule: lowerbound}]",
            "gating.rules.0: there is no 'rule' 'lowerbound'; did you mean 'lower_bound'?",
        ),
        ("gating.rules=[{metric: auroc}]", "gating.rules.0: 'rule' is missing; add it"),
        (
            "training.classes=[AP, PA]",
            "training.classes is not ingestion.labels.classes; leave it out",
        ),
    ],
)
def test_faults_are_told_in_our_words(tmp_path, override, told) -> None:
    assert message(tmp_path, VALID, override) == f"--set: {told}"


def test_a_setting_without_its_section_is_found_by_its_name(tmp_path) -> None:
    told = message(tmp_path, VALID, "max_epochs=5")
    assert told == "--set: max_epochs is not a setting; did you mean 'training.max_epochs'?"
    both = "did you mean 'training.seed' or 'evaluation.seed'?"
    assert message(tmp_path, VALID, "seed=5").endswith(both)
    assert message(tmp_path, VALID, "trainin.seed=5").startswith("--set: trainin is not a setting")


def test_new_patients_are_counted_by_the_names_that_ingestion_gives(tmp_path) -> None:
    text = Path("configs/phantom.yaml").read_text()
    own = tmp_path / "own.yaml"
    own.write_text(text.replace("ingestion:\n", "ingestion:\n  deidentification: {dates: full}\n"))
    config = load(own)
    assert config.retraining.deidentification.dates == "full"
    assert config.ingestion.history == config.registration.name
    own.write_text(own.read_text().split("retraining:")[0])
    assert load(own).retraining.deidentification.dates == "full"
