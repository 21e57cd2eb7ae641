import ast

import pytest

from lineage import code
from lineage.code import PACKAGES, ROOT, code_digest, reachable


def names(module: str) -> set[str]:
    return {path.relative_to(ROOT).as_posix() for path in reachable(module)}


def test_imports_inside_functions_count() -> None:
    assert "training/fit.py" in names("components.train")
    assert "imaging/deidentify.py" in names("components.ingest")


def test_a_step_does_not_reach_what_it_never_imports() -> None:
    assert not any(name.startswith(("training/", "serving/")) for name in names("components.gate"))
    assert not any(name.startswith("pipelines/") for name in names("components.train"))


def test_a_table_counts_where_it_is_read() -> None:
    assert "imaging/ps315_basic_profile.csv" in names("components.ingest")
    assert "imaging/ps315_basic_profile.csv" not in names("components.split")


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
        for cached in (code.sources, code._source, code._mentions, code._data_beside):
            cached.cache_clear()
        seen.add(code_digest("components.step"))
    for cached in (code.sources, code._source, code._mentions, code._data_beside):
        cached.cache_clear()
    assert len(seen) == 2


COMPUTED = {"import_module", "__import__", "spec_from_file_location", "run_module", "run_path"}
# A worker imports the function that its parent names; the parent's own module holds it.
# The doctor only asks whether other people's libraries can be imported.
EXEMPT = {"imaging/worker.py", "pipelines/doctor.py"}


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
    for path in reachable("components.ingest"):
        tree = ast.parse(path.read_text()) if path.suffix == ".py" else ast.Module([], [])
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "map_isolated":
                module = ast.literal_eval(node.args[0]).partition(":")[0]
                assert module.replace(".", "/") + ".py" in names("components.ingest")
                return
    pytest.fail("no step uses map_isolated: this test, and the exemption above, can go")
