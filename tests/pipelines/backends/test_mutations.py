"""Change one thing, and see which steps' keys change: neither fewer than it can affect, nor more.

What a change can affect is worked out another way than the keys are: by the import graph that
grimp draws, and by who is wired to what.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grimp
import pytest
from pydantic import BaseModel

from lineage.code import DATA, PACKAGES, ROOT
from lineage.digest import digest
from lineage.known import Known
from lineage.workspace import Workspace
from pipelines.backends import keys
from pipelines.config import LifecycleConfig, load
from pipelines.graph import Pipeline, Source, Step
from pipelines.model_lifecycle import model_lifecycle

CONFIG = ROOT / "configs" / "phantom.yaml"
SECTIONS = {
    "sources": (),  # their content counts, not where they lie
    "ingestion": ("ingest",),
    "validation": ("validate",),
    "splitting": ("split",),
    "training": ("train",),
    "evaluation": ("evaluate",),
    "gating": ("gate",),
    "registration": ("register",),
    "promotion": ("promote",),
    "deployment": ("deploy_canary",),
    "monitoring": ("monitor_drift",),
    "retraining": ("retrain",),
}
STEPS = [step for steps in SECTIONS.values() for step in steps]

# Runs in a copy of the repository: for each line, texts by path, append these, say what key each
# step would have in a fresh process, and put the files back as they were.
KEYS_AFTER_EDITS = """
import json, os, sys
from pathlib import Path
from lineage import code
from lineage.workspace import Workspace
from pipelines.backends import keys
from pipelines.config import load
from pipelines.model_lifecycle import model_lifecycle

assert code.ROOT == Path.cwd()
home, memory = Workspace(Path("home").absolute()), Path("home")
pipeline = model_lifecycle(load(Path("configs/phantom.yaml")))

def told():
    reading, writing = os.pipe()
    if os.fork() == 0:
        code._pinned.clear()  # a new process would look at the files before it loads any
        code.recall(memory)
        found = {s.name: keys.digest("step", keys.key_parts(s, {}, home)) for s in pipeline.steps()}
        code.remember(memory)
        os.write(writing, json.dumps(found).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        return json.loads(pipe.read())

print(json.dumps(told()), flush=True)
for line in sys.stdin:
    edits = json.loads(line)
    before = {path: Path(path).read_bytes() for path in edits}
    for path, text in edits.items():
        Path(path).write_bytes(before[path] + text.encode())
    print(json.dumps(told()), flush=True)
    for path, content in before.items():
        Path(path).write_bytes(content)
print(json.dumps(told()), flush=True)
"""


def changed_by(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {step for step in before if before[step] != after[step]}


def keys_after(copy: Path, edits: list[dict[str, str]]) -> list[dict[str, str]]:
    """Each step's key with no edit, and with each of these."""
    for package in (*PACKAGES, "configs"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, copy / package, ignore=ignored)
    shutil.copy(ROOT / "requirements.lock", copy)
    done = subprocess.run(
        [sys.executable, "-c", KEYS_AFTER_EDITS],
        input="\n".join(map(json.dumps, edits)),
        env={**os.environ, "PYTHONPATH": str(copy)},
        cwd=copy,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    first, *after, last = map(json.loads, done.stdout.splitlines())
    assert first == last
    assert list(first) == STEPS
    assert len(after) == len(edits)
    return [first, *after]


@pytest.fixture(scope="module")
def edits(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """By each first-party file, table, template, and the lock file: the steps whose keys change."""
    files = [str(path.relative_to(ROOT)) for package in PACKAGES for path in _files(ROOT / package)]
    files.append("requirements.lock")
    texts = [{file: "\nMUTATED = 1\n" if file.endswith(".py") else "\n"} for file in files]
    first, *after = keys_after(tmp_path_factory.mktemp("copy"), texts)
    changed = [changed_by(first, keys) for keys in after]
    return dict(zip(files, changed, strict=True))


def _files(package: Path) -> list[Path]:
    return sorted(p for p in package.rglob("*") if p.suffix == ".py" or p.suffix in DATA)


@pytest.fixture(scope="module")
def reached() -> dict[str, set[str]]:
    """By step: the first-party modules that it can come to execute, as grimp sees the imports."""
    graph = grimp.build_graph(*PACKAGES, exclude_type_checking_imports=True, cache_dir=None)

    def closure(module: str) -> set[str]:
        found, waiting = set(), [module]
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                # Importing a.b also executes a, and what a imports.
                waiting += graph.find_modules_directly_imported_by(name)
                waiting += [name.rpartition(".")[0]] if "." in name else []
        return found

    return {step: closure(f"components.{step}") for step in STEPS}


def test_an_edited_module_changes_the_keys_of_the_steps_that_can_reach_it(edits, reached) -> None:
    seen = 0
    for file, changed in edits.items():
        if file.endswith(".py"):
            module = file.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
            assert changed == {step for step in STEPS if module in reached[step]}, file
            seen += bool(changed)
    assert seen > 60
    assert not any(changed for file, changed in edits.items() if file.startswith("pipelines/"))


def test_an_import_that_is_added_counts_from_then_on(tmp_path) -> None:
    """Wherever it stands, but for type checkers; what was known of the file before is forgotten."""
    added = "\ndef later() -> None:\n    from monitoring import drift\n"
    typed = "\nfrom typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    import monitoring.drift\n"
    drift = {"monitoring/drift.py": "\nMUTATED = 1\n"}
    here = "serving/config.py"
    first, alone, importing, imported, typing, typed_only = keys_after(
        tmp_path / "copy",
        [drift, {here: added}, {here: added} | drift, {here: typed}, {here: typed} | drift],
    )
    assert changed_by(first, alone) == {"monitor_drift"}
    assert changed_by(first, importing) == {"deploy_canary"} == changed_by(first, typing)
    assert changed_by(importing, imported) == {"deploy_canary", "monitor_drift"}
    assert changed_by(typing, typed_only) == {"monitor_drift"}


def test_an_edited_table_or_template_changes_the_keys_of_those_who_read_it(edits, reached) -> None:
    tables = {file: changed for file, changed in edits.items() if Path(file).suffix in DATA}
    assert len(tables) >= 3
    for file, changed in tables.items():
        readers = {
            path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
            for path in (ROOT / file).parent.glob("*.py")
            if Path(file).name in path.read_text()
        }
        assert readers
        assert changed == {step for step in STEPS if readers & reached[step]}, file


def test_other_packages_change_every_key(edits) -> None:
    assert edits["requirements.lock"] == set(STEPS)


def keys_of(pipeline: Pipeline, home: Workspace, **sources: str) -> dict[str, str]:
    """Each step's key, as if all earlier steps had made what they always make."""
    return {
        step.name: digest("step", keys.key_parts(step, _contents(step, sources), home))
        for step in pipeline.steps()
    }


def _contents(step: Step, sources: dict[str, str]) -> dict[str, str]:
    named = {name: o.name for name, o in step.inputs.items() if isinstance(o, Source)}
    return {name: sources.get(named.get(name, ""), "made") for name in step.inputs}


def test_another_secret_changes_the_keys_of_the_steps_that_use_it(home, monkeypatch) -> None:
    pipeline = model_lifecycle(load(CONFIG))
    before = keys_of(pipeline, home)
    used = {
        "PSEUDONYM_KEY": {"ingest", "retrain"},
        "SPLIT_KEY": {"split"},
        "ENDPOINT_TOKEN": {"deploy_canary"},
    }
    assert {n for step in pipeline.steps() for n in step.component.secrets} == {
        name.lower().replace("_", ".") for name in used
    }
    for name, steps in used.items():
        with monkeypatch.context() as patch:
            patch.setenv(f"LIGHTBOX_SECRET_{name}", "ab" * 32)
            assert changed_by(before, keys_of(pipeline, home)) == steps, name
    assert keys_of(pipeline, home) == before


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path to every single setting, through sections, mappings and lists."""
    inside: Any = ()
    if isinstance(value, BaseModel):
        inside = [(name, getattr(value, name)) for name in type(value).model_fields]
    elif isinstance(value, dict):
        inside = value.items()
    elif isinstance(value, list | tuple):
        inside = enumerate(value)
    for name, item in inside:
        yield from leaves(item, (*path, name))
    if not inside:
        yield path


def with_leaf(value: Any, path: tuple[Any, ...]) -> Any:
    """The same settings but for one, as valid or not as it may be."""
    if not path:
        return _other(value)
    name, *rest = path
    if isinstance(value, BaseModel):
        return value.model_copy(update={name: with_leaf(getattr(value, name), tuple(rest))})
    if isinstance(value, dict):
        return {**value, name: with_leaf(value[name], tuple(rest))}
    items = [with_leaf(item, tuple(rest)) if n == name else item for n, item in enumerate(value)]
    return type(value)(items)


def _other(value: Any) -> Any:
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1
        case str():
            return f"{value}x"
        case None:
            return 1
    return type(value)([1]) if isinstance(value, list | tuple) else {"x": 1}


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydantic: such a value was not foreseen
def test_each_single_setting_changes_the_key_of_the_step_that_gets_it(home) -> None:
    config = load(CONFIG)
    assert set(SECTIONS) == set(LifecycleConfig.model_fields)
    before = keys_of(model_lifecycle(config), home)
    paths = list(leaves(config))
    assert len(paths) > 100
    for path in paths:
        after = keys_of(model_lifecycle(with_leaf(config, path)), home)
        assert changed_by(before, after) == set(SECTIONS[path[0]]), path


@pytest.mark.parametrize("source", ["scans", "labels", "previous", "champion", "traffic"])
def test_one_byte_of_a_source_changes_the_keys_of_the_steps_that_read_it(
    home, tmp_path, source
) -> None:
    readers = {
        "scans": {"ingest"},
        "labels": {"ingest", "retrain"},
        "previous": {"validate"},
        "champion": {"evaluate"},
        "traffic": {"monitor_drift"},
    }
    pipeline = model_lifecycle(load(CONFIG))
    assert {s.name for s in pipeline.sources()} == set(readers)
    file = tmp_path / source / "deep" / "file.bin"
    file.parent.mkdir(parents=True)
    file.write_bytes(bytes(4096))
    memory, found = Known(tmp_path / "known"), []
    for _ in range(2):
        content = memory.tree_digest(tmp_path / source)
        found.append(keys_of(pipeline, home, **{source: content}))
        with file.open("r+b") as opened:
            opened.seek(2048)
            opened.write(b"\x01")
    assert changed_by(*found) == readers[source]
