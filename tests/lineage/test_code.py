import ast
import os
import py_compile
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from py_compile import PycInvalidationMode
from types import ModuleType

import pytest

from lineage import code
from lineage.code import PACKAGES, ROOT, code_digest, reachable
from lineage.errors import BadInput


def names(module: str) -> set[str]:
    return {path.relative_to(ROOT).as_posix() for path in reachable(module)}


def test_imports_inside_functions_count() -> None:
    assert "training/fit.py" in names("components.train")
    assert "imaging/deidentification/deidentify.py" in names("components.ingest")


def test_a_step_does_not_reach_what_it_never_imports() -> None:
    assert not any(name.startswith(("training/", "serving/")) for name in names("components.gate"))
    assert not any(name.startswith("pipelines/") for name in names("components.train"))


def test_a_table_counts_where_it_is_read() -> None:
    assert "imaging/deidentification/ps315_basic_profile.csv" in names("components.ingest")
    assert "imaging/deidentification/ps315_basic_profile.csv" not in names("components.split")


@pytest.mark.parametrize("package", PACKAGES)
def test_every_table_and_template_is_named_in_full_by_a_module_beside_it(package: str) -> None:
    """No key would see one whose name is put together while running."""
    for file in (p for p in (ROOT / package).rglob("*") if p.suffix in code.DATA):
        assert any(f'"{file.name}"' in path.read_text() for path in file.parent.glob("*.py")), file


def test_a_changed_helper_changes_the_digest(tmp_path, monkeypatch) -> None:
    (tmp_path / "components").mkdir()
    (tmp_path / "components" / "__init__.py").write_text("")
    (tmp_path / "components" / "step.py").write_text(
        "def f():\n    from components import helper\n"
    )
    helper = tmp_path / "components" / "helper.py"
    helper.write_text("LEVEL = 1\n")
    monkeypatch.setattr(code, "ROOT", tmp_path)
    seen = set()
    for text in ("LEVEL = 1\n", "LEVEL = 2\n"):
        helper.write_text(text)
        forget()
        seen.add(code_digest("components.step"))
    forget()
    assert len(seen) == 2


def forget() -> None:
    """As a new process would start."""
    for cached in (code.sources, code._source, code._mentions, code._data_beside):
        cached.cache_clear()
    code._pinned.clear()


@pytest.fixture
def compiled(tmp_path, monkeypatch) -> Iterator[tuple[Path, Path]]:
    """A component whose compiled form Python would take, though it is of an older text."""
    monkeypatch.setattr(code, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "pycache_prefix", None)
    source = tmp_path / "components" / "step.py"
    source.parent.mkdir()
    source.write_text("A = 1\n")
    found = Path(py_compile.compile(str(source), invalidation_mode=PycInvalidationMode.TIMESTAMP))
    time.sleep(0.02)
    yield source, found
    forget()


def replaced(source: Path, text: str) -> None:
    """Edited as `rsync -t` does: another text of the same length, the old time put back."""
    before = source.stat()
    source.write_text(text)
    os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_compiled_form_of_an_older_text_is_not_believed(compiled) -> None:
    source, found = compiled
    replaced(source, "A = 2\n")
    code.pin()
    assert not found.exists()


def test_a_compiled_form_of_this_very_text_stays(compiled) -> None:
    source, found = compiled
    code.pin()
    replaced(source, "A = 1\n")
    code.pin()
    assert found.exists()


def test_what_was_loaded_from_an_older_text_does_not_run(compiled, monkeypatch) -> None:
    source, _ = compiled
    replaced(source, "A = 2\n")
    loaded = ModuleType("components.step")
    loaded.__file__ = str(source)
    monkeypatch.setitem(sys.modules, "components_step_of_a_test", loaded)
    with pytest.raises(BadInput, match=r"components/step\.py was edited"):
        code.pin()
    code.pin()  # the same command again


def test_an_edit_after_loading_is_seen_and_does_not_change_the_key(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(code, "ROOT", tmp_path)
    source = tmp_path / "components" / "step.py"
    source.parent.mkdir()
    source.write_text("A = 1\n")
    forget()
    code.pin()
    before = code_digest("components.step")
    assert code.edited("components.step") is None
    source.write_text("A = 2\n")
    assert code.edited("components.step") == "components/step.py"
    assert code_digest("components.step") == before
    source.unlink()
    assert code.edited("components.step") == "components/step.py"
    forget()


COMPUTED = {"import_module", "__import__", "spec_from_file_location", "run_module", "run_path"}
# A worker imports the function that its parent names; the parent's own module holds it.
# The doctor only asks whether other people's libraries can be imported.
# The entrypoint imports the step itself, whose own module is what the key begins at.
EXEMPT = {"imaging/worker.py", "pipelines/doctor.py", "components/__main__.py"}


@pytest.mark.parametrize("package", PACKAGES)
def test_no_first_party_import_escapes_the_walk(package: str) -> None:
    """Relative or computed imports of our own code would make a stale cache hit."""
    for path in (ROOT / package).rglob("*.py"):
        file = path.relative_to(ROOT).as_posix()
        for node in ast.walk(ast.parse(path.read_text())):
            assert not (isinstance(node, ast.ImportFrom) and node.level), file
            name = getattr(node, "id", None) or getattr(node, "attr", None)
            assert name not in COMPUTED or file in EXEMPT, f"{file}: no cache key sees this import"


def test_what_workers_are_told_to_import_is_reachable_from_the_step() -> None:
    """They get the name as text, "module:function", which the walk cannot read."""
    told = set()
    for path in reachable("components.ingest"):
        tree = ast.parse(path.read_text()) if path.suffix == ".py" else ast.Module([], [])
        texts = (n.value for n in ast.walk(tree) if isinstance(n, ast.Constant))
        told |= {t for t in texts if isinstance(t, str) and re.fullmatch(r"imaging[\w.]+:\w+", t)}
    assert told, "no step uses workers: this test, and the exemption above, can go"
    modules = {name.partition(":")[0].replace(".", "/") for name in told}
    assert {f"{module}.py" for module in modules} <= set(names("components.ingest"))


def test_a_step_of_somebody_else_s_module_has_its_own_file_in_its_key(
    tmp_path, monkeypatch
) -> None:
    source = tmp_path / "theirs.py"
    source.write_text("from imaging import splits\n")
    theirs = ModuleType("theirs")
    theirs.__file__ = str(source)
    monkeypatch.setitem(sys.modules, "theirs", theirs)
    code.sources.cache_clear()
    before = code.sources("theirs")
    assert before.keys() >= {str(source), "imaging/splits.py"}
    assert code.edited("theirs") is None
    source.write_text("from imaging import labels\n")
    assert code.edited("theirs") == str(source)
    forget()
