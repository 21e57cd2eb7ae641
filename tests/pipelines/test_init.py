import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from evaluation.intervals import auroc
from imaging.phantom import SCANNERS, write_cohort
from imaging.surveying.survey import Survey, survey
from lineage.errors import BadInput
from pipelines import cli
from pipelines.config import LifecycleConfig, load
from pipelines.init import as_yaml, lower_limit, propose, write


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Phantom scans of 80 patients, and their table beside them."""
    folder = tmp_path_factory.mktemp("phantom")
    write_cohort(folder / "scans", seed=3, patients=80, scanners=SCANNERS[:2])
    return folder


@pytest.fixture(scope="module")
def found(folder: Path) -> Survey:
    return survey(folder)


def written(tmp_path: Path, found: Survey) -> LifecycleConfig:
    path = tmp_path / "own.yaml"
    write(path, found, propose(found, tmp_path), force=True)
    return load(path)


def rules(config: LifecycleConfig) -> dict[str, Any]:
    return {rule.rule: rule for rule in config.gating.rules}


def test_what_is_written_is_what_was_found(tmp_path: Path, folder: Path, found: Survey) -> None:
    config = written(tmp_path, found)
    assert config.sources.scans == str(folder / "scans")
    assert config.sources.labels == str(folder / "scans-labels.csv")
    assert config.ingestion.labels == found.settings
    assert config.validation.modalities == ("DX",)
    assert config.splitting.fractions.test == 0.3
    assert set(rules(config)) == {"minimum_n", "lower_bound", "not_worse_than_champion"}
    text = (tmp_path / "own.yaml").read_text()
    assert "of 80 patients can be used" in text
    assert "it is named like one. Others: none." in text
    assert all(len(line) <= 120 for line in text.splitlines())


@pytest.mark.parametrize("classes", [(15, 15), (10, 70), (40, 40), (300, 900), (4000, 9000)])
def test_the_gate_asks_for_what_the_test_split_will_have(
    tmp_path: Path, found: Survey, classes: tuple[int, int]
) -> None:
    found = replace(
        found, class_patients=classes, class_images=classes, patients=sum(classes), usable=5000
    )
    config, proposal = written(tmp_path, found), propose(found, tmp_path)
    draws = np.random.default_rng(0)
    test = [draws.binomial(n, config.splitting.fractions.test, 20_000) for n in classes]
    gate = rules(config)
    for drawn, least in (
        (test[0] + test[1], gate["minimum_n"].patients),
        (test[0], gate["minimum_n"].negatives),
        (test[1], gate["minimum_n"].positives),
    ):
        # A first run is not to end by a draw of one in fifty.
        assert least == 1 or (drawn < least).mean() < 0.002
    assert 0.6 <= gate["lower_bound"].at_least <= 0.8
    warned = any("inconclusive" in warning for warning in proposal.warnings)
    assert warned == (min(classes) * config.splitting.fractions.test < 9)


def test_the_lower_limit_is_where_the_interval_of_evaluation_begins() -> None:
    draws, lows = np.random.default_rng(0), []
    labels, patients = np.repeat([0, 1], 30), np.arange(60)
    for _ in range(100):
        # Two normal distributions that lie 2.33 standard deviations apart: AUROC 0.95.
        lows.append(auroc(labels, draws.normal(2.33 * labels), patients).low)
    assert lower_limit(0.95, 30, 30) == pytest.approx(np.median(lows), abs=0.03)


def test_what_the_defaults_would_refuse_is_asked_for_less(tmp_path: Path, found: Survey) -> None:
    small = replace(
        found, usable=36, class_images=(18, 18), class_patients=(18, 18), patients=36, files=60,
        looked_at=60, kinds={"DICOM": 60}, set_aside={"colour": 24}, smallest=(12, 300),
    )  # fmt: skip
    config = written(tmp_path, small)
    assert config.validation.minimum_images == 28
    assert config.validation.maximum_set_aside_share == pytest.approx(0.42)
    assert (config.validation.rows.low, config.validation.columns.low) == (12, 16)
    assert config.splitting.minimum_patients < 5
    rare = replace(found, usable=1000, class_images=(990, 10), class_patients=(990, 10))
    assert written(tmp_path, rare).validation.minimum_class_share == 0.005


def test_too_few_patients_are_refused(tmp_path: Path, found: Survey) -> None:
    for changes in ({"patients": 29}, {"class_patients": (73, 7)}):
        with pytest.raises(BadInput, match="at least 30 patients, 8 in each class"):
            propose(replace(found, **changes), tmp_path)


def test_volumes_are_told_where_they_can_go(tmp_path: Path, found: Survey) -> None:
    volumes = {"usable": 0, "patients": 0, "set_aside": {"multi_frame": found.images}}
    with pytest.raises(BadInput, match=r"multi_frame \(There is more .*ingestion\.frames: keep"):
        propose(replace(found, **volumes), tmp_path)


def test_labels_that_are_no_table_are_told_where_they_can_go(tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    Image.new("L", (64, 64)).save(tmp_path / "scans" / "a.png")
    with pytest.raises(BadInput, match=r"FHIR reports or masks see docs/labels\.md"):
        survey(tmp_path / "scans")


def test_an_address_is_fetched_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    asked = CliRunner().invoke(cli.cli, ["init", "s3://scans/chest"], standalone_mode=False)
    assert "`lightbox fetch ADDRESS FOLDER` first" in str(asked.exception)


def test_large_data_train_for_a_bounded_time(tmp_path: Path, found: Survey) -> None:
    large = replace(found, files=200_000, looked_at=2000, usable=2000, typical=(2000, 2000))
    proposal = propose(large, tmp_path)
    assert proposal.epochs < propose(found, tmp_path).epochs == 30
    assert 30 <= proposal.minutes <= 1000


def test_the_model_is_named_after_the_folder_that_says_something(found: Survey) -> None:
    for folder in ("own/Chest_2024", "own/Chest_2024/images"):
        assert propose(found, Path(folder)).name == "chest-2024-finding"


def test_no_image_is_mirrored_where_the_label_is_a_side(tmp_path: Path, found: Survey) -> None:
    assert "RandFlip, args" in as_yaml(found, propose(found, tmp_path))
    settings = found.settings.model_copy(update={"classes": ("left", "right")})
    sided = replace(found, settings=settings)
    assert "RandFlip, args" not in as_yaml(sided, propose(sided, tmp_path))


@pytest.mark.parametrize(
    "name",
    [
        "no", "1", "1e3", "a: b", "x #y", "näh", 'q"', "a\nb", "[z", "~", "${HOME}", "$${NO:-x}",
        "a\x85b", "a\x9fb", "a\u2028b", "\ufeffa", "\U0001f600", "a\U000e0001b", "x" * 300 + " y",
    ],
)  # fmt: skip
def test_any_name_survives_the_way_through_yaml(tmp_path: Path, found: Survey, name: str) -> None:
    settings = found.settings.model_copy(
        update={"column": name, "classes": (name, name + "2"), "sex_column": name}
    )
    labels = written(tmp_path, replace(found, settings=settings)).ingestion.labels
    assert (labels.column, labels.classes) == (name, (name, name + "2"))


def test_what_would_be_read_as_something_else_is_not_written(
    tmp_path: Path, found: Survey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.init._value", str)  # unquoted
    settings = found.settings.model_copy(update={"column": "a #b"})
    with pytest.raises(BadInput, match="settings cannot say the name"):
        written(tmp_path, replace(found, settings=settings))
    assert not list(tmp_path.iterdir())


def test_nothing_is_written_among_the_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "chest"
    (folder / "images").mkdir(parents=True)
    rows = ["image,patient_id,finding"]
    for i in range(40):
        picture = np.random.default_rng(i).integers(0, 255, (20, 30), np.uint8)
        Image.fromarray(picture).save(folder / "images" / f"{i}.png")
        rows.append(f"{i}.png,P{i},{('no', 'yes')[i % 2]}")
    (folder / "labels.csv").write_text("\n".join(rows))
    monkeypatch.delenv("LIGHTBOX_HOME", raising=False)
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(folder / "images")
    for place in (".", "..", "../images", str(folder)):
        done = CliRunner().invoke(cli.cli, ["init", place])
        assert "type `lightbox init" in str(done.exception)
        assert "LIGHTBOX_HOME names another" in str(done.exception)
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli.cli, ["init", "chest", "-o", "chest/images/own.yaml"])
    assert "the settings (chest/images/own.yaml) would lie among" in str(done.exception)
    assert sorted(tmp_path.rglob("*")) == before
    monkeypatch.setenv("LIGHTBOX_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(folder)
    assert CliRunner().invoke(cli.cli, ["init", "."]).exit_code == 0


def test_a_file_is_not_replaced_unasked_and_never_half_written(
    tmp_path: Path, found: Survey
) -> None:
    path = tmp_path / "deep" / "own.yaml"
    proposal = propose(found, tmp_path)
    write(path, found, proposal)
    path.write_text("mine")
    with pytest.raises(BadInput, match="already there: --force replaces it"):
        write(path, found, proposal)
    assert path.read_text() == "mine"
    unfit = replace(proposal, name="/")
    with pytest.raises(BadInput):
        write(path, found, unfit, force=True)
    assert path.read_text() == "mine"
    assert [p.name for p in path.parent.iterdir()] == ["own.yaml"]
    with pytest.raises(BadInput, match="cannot be written"):
        write(path / "below.yaml", found, proposal)


def test_the_command_tells_and_writes(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli.cli, ["init", str(folder)], catch_exceptions=False)
    name = f"{folder.name}-finding".replace("_", "-")
    assert f"next: lightbox run configs/{name}.yaml" in done.output
    assert load(Path("configs") / f"{name}.yaml").registration.name == name
    for line in ("MONOCHROME1", "'absent': ", "gate: AUROC"):
        assert line in done.output
    machine = CliRunner().invoke(cli.cli, ["init", str(folder), "--force", "--json"])
    told = json.loads(machine.stdout)
    assert told["survey"]["patients"] == 80
    assert told["proposal"]["name"] == name
    with (folder / "scans-labels.csv").open() as table:
        secrets = {row[key] for row in csv.DictReader(table) for key in row if key != "finding"}
    assert not [s for s in secrets if s in done.output + machine.stdout]


def test_real_radiographs(tmp_path: Path, real_data: Path) -> None:
    config = written(tmp_path, survey(real_data / "chest"))
    assert config.ingestion.labels.classes == ("AP", "PA")
    assert config.sources.scans == str(real_data / "chest" / "images")
    assert rules(config)["lower_bound"].at_least == 0.8


def test_a_relative_folder_stays_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data" / "images").mkdir(parents=True)
    rows = ["image,patient_id,finding"]
    for i in range(40):
        picture = np.random.default_rng(i).integers(0, 255, (20, 30), np.uint8)
        Image.fromarray(picture).save(tmp_path / "data" / "images" / f"{i}.png")
        rows.append(f"{i}.png,P{i},{('no', 'yes')[i % 2]}")
    (tmp_path / "data" / "labels.csv").write_text("\n".join(rows))
    monkeypatch.chdir(tmp_path)
    config = written(tmp_path, survey(Path("data")))
    assert (config.sources.scans, config.sources.labels) == ("data/images", "data/labels.csv")
