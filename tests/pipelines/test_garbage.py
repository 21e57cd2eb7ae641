"""What may go, and above all what may not."""

import json
import os
import shutil
import time
from pathlib import Path

import pytest
from evidence import prepare_registry
from toys import Settings, compare, judge, read

from lineage.errors import BadInput, StepFailed
from pipelines.backends import local
from pipelines.backends.store import Store
from pipelines.garbage import find_waste, free
from pipelines.graph import Pipeline, Source, Step
from pipelines.runs import Run
from registry import mlflow_registry

OLD = time.time() - 40 * 86_400


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "in.txt").write_text("x" * 60)
    return tmp_path


def walk(folder: Path, home, text: str = "hello") -> Run:
    config = Settings(journal=str(folder / "journal.txt"), text=text)
    words = Step(read, config, source=Source("source", str(folder / "source")))
    pipeline = Pipeline("toy", [words, Step(judge, config, words=words["words"])])
    return local.run(pipeline, home, lambda source: Path(source.uri))


def kinds(waste) -> set[str]:
    return {each.kind for each in waste}


def test_what_a_run_refers_to_stays(folder, home) -> None:
    walk(folder, home)
    walk(folder, home, "hallo")
    assert find_waste(home) == []
    assert find_waste(home, runs_older_than_days=30) == []


def test_an_old_run_goes_with_what_only_it_refers_to(folder, home) -> None:
    old, new = walk(folder, home, "hello"), walk(folder, home, "hallo!!")
    os.utime(home.runs / old.id, (OLD, OLD))
    waste = find_waste(home, runs_older_than_days=30)
    assert kinds(waste) == {"run", "record of a step", "output of a step"}
    gone = {each.path.name for each in waste if each.kind == "output of a step"}
    assert gone == set().union(*(step.outputs.values() for step in old.steps))
    assert free(home, runs_older_than_days=30) == waste
    assert find_waste(home, runs_older_than_days=30) == []
    again = walk(folder, home, "hallo!!")
    assert [(s.state, s.made_by) for s in again.steps] == [("reused", new.id)] * 2
    assert [s.state for s in walk(folder, home, "hello").steps] == ["ran", "ran"]


def test_the_newest_run_stays_however_old(folder, home) -> None:
    run = walk(folder, home)
    os.utime(home.runs / run.id, (OLD, OLD))
    assert find_waste(home, runs_older_than_days=0) == []


def test_what_a_killed_run_left_behind_goes(folder, home) -> None:
    walk(folder, home)
    half = home.store / "building" / "read-1-x" / "words"
    half.mkdir(parents=True)
    (half / "words.txt").write_text("half")
    waste = find_waste(home)
    assert [(each.kind, each.size_bytes) for each in waste] == [("an unfinished step", 4)]
    assert free(home) == waste
    assert not half.parent.exists()


def test_what_a_version_in_the_registry_or_an_endpoint_refers_to_stays(folder, home) -> None:
    """Its run's record is gone, and only a state file still names the object."""
    run = walk(folder, home)
    walk(folder, home, "hallo")
    shutil.rmtree(home.runs / run.id)
    content = run.step("read").outputs["words"]
    assert content in {each.path.name for each in find_waste(home)}
    state = home.endpoint("toy") / "state.json"
    state.parent.mkdir(parents=True)
    state.write_text(f'{{"variants": [{{"digest": "{content}"}}]}}')
    assert content not in {each.path.name for each in find_waste(home)}


def test_nothing_is_removed_under_a_run(folder, home) -> None:
    walk(folder, home)
    (home.store / "building" / "half").mkdir()
    waste = find_waste(home)
    with Store(home.store).in_use(), pytest.raises(StepFailed, match="a run is going on"):
        assert free(home) == waste
    assert waste[0].path.exists()


def test_a_removal_that_was_killed_is_finished_the_next_time(folder, home) -> None:
    run = walk(folder, home)
    place = home.store / "objects" / run.step("read").outputs["words"]
    place.rename(place.with_name(f".gone-{place.name}"))
    waste = find_waste(home)
    assert [each.path.name[:6] for each in waste] == [".gone-"]
    assert free(home) == waste
    assert find_waste(home) == []


def test_an_empty_workspace_has_nothing_to_free(home) -> None:
    assert find_waste(home) == []


def test_the_record_of_another_version_s_run_still_counts(folder, home) -> None:
    run = walk(folder, home)
    walk(folder, home, "hallo!!")
    record = home.runs / run.id / "run.json"
    facts = json.loads(record.read_text())
    facts["steps"] = [{**step, "flavour": "sweet"} for step in facts["steps"]]
    record.write_text(json.dumps(facts))
    assert find_waste(home) == []


def test_a_comparison_that_stands_after_a_release_stays(folder, home) -> None:
    """It is found under a second name, which no run knows."""
    throne = folder / "throne"
    throne.mkdir()
    (throne / "words.txt").write_text("the first")
    config = Settings(journal=str(folder / "journal.txt"))
    made = Step(read, config, source=Source("source", str(folder / "source")))
    rival = Source("rival", str(throne), replaced_by=made["words"])
    pipeline = Pipeline("p", [made, Step(compare, config, mine=made["words"], theirs=rival)])
    run = local.run(pipeline, home, lambda source: Path(source.uri))
    shutil.copy(home.runs / run.id / "read.words" / "words.txt", throne)
    assert free(home) == []
    again = local.run(pipeline, home, lambda source: Path(source.uri))
    assert [step.state for step in again.steps] == ["reused", "reused"]


@pytest.mark.parametrize(
    ("lose", "told"),
    [
        (Path.unlink, "saw toy:1 registered, but MLflow has lost that"),
        (lambda path: path.write_bytes(b""), "is empty: restore it from a backup"),
        (lambda path: path.write_bytes(os.urandom(4096)), "cannot be read .* `lightbox doctor`"),
    ],
    ids=["gone", "emptied", "rubbish"],
)
def test_nothing_goes_while_the_registry_is_lost(folder, home, lose, told) -> None:
    """What its versions need would be unknown: an emptied database is not an empty registry."""
    prepare_registry(home)
    model = folder / "model"
    model.mkdir()
    (model / "file.json").write_text("weights")
    mlflow_registry.register_model("toy", model, {"verdict": "pass"}, {})
    run = walk(folder, home)
    shutil.rmtree(home.runs / run.id)
    lose(home.home / "mlflow.db")
    for act in (find_waste, free):
        with pytest.raises(BadInput, match=told):
            act(home)
    assert Store(home.store).path(run.step("read").outputs["words"]).exists()
