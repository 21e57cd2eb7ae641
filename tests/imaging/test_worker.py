import os
from pathlib import Path

import pytest

from imaging.worker import DECODER_ABORTED, TOO_LARGE, TOO_SLOW, each_isolated, map_isolated
from lineage.errors import StepFailed

TASKS = """
import os, resource, time

def work(setup):
    def one(item):
        if item == "abort":
            os.abort()
        if item == "hang":
            time.sleep(600)
        if item == "eat":
            return len(bytearray(8 * 2**30))
        if item == "raise":
            raise KeyError("Quernstein")
        if item == "print":
            os.write(1, b"Quernstein"); os.write(2, b"Quernstein")
        if item == "core":
            return resource.getrlimit(resource.RLIMIT_CORE)[0]
        return [setup, item, os.getpid()]
    return one

def broken(setup):
    raise RuntimeError("no start")
"""


@pytest.fixture(autouse=True)
def tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "made_up_tasks.py").write_text(TASKS)
    monkeypatch.syspath_prepend(str(tmp_path))


def run(items: list[str], timeout_s: float = 60.0, processes: int = 2) -> list:  # type: ignore[type-arg]
    return map_isolated(
        "made_up_tasks:work",
        {"key": 7},
        items,
        timeout_s=timeout_s,
        memory_gib=0.5,
        processes=processes,
    )


def test_results_keep_the_order_of_the_items() -> None:
    items = [str(i) for i in range(50)]
    results = run(items)
    assert [r[:2] for r in results] == [[{"key": 7}, item] for item in items]
    assert os.getpid() not in {r[2] for r in results}


def test_an_aborting_or_greedy_file_costs_itself_only() -> None:
    results = run(["a", "abort", "b", "eat", "c", "abort", "abort", "d"])
    assert [r if isinstance(r, dict) else r[1] for r in results] == [
        "a", DECODER_ABORTED, "b", TOO_LARGE, "c", DECODER_ABORTED, DECODER_ABORTED, "d",
    ]  # fmt: skip


def test_what_a_dead_child_held_is_done_by_another() -> None:
    items = ["abort" if i % 9 == 4 else str(i) for i in range(40)]
    results = run(items)
    assert [r if isinstance(r, dict) else r[1] for r in results] == [
        DECODER_ABORTED if item == "abort" else item for item in items
    ]


def test_results_come_one_by_one_and_who_stops_listening_stops_the_children() -> None:
    answers = each_isolated(
        "made_up_tasks:work", 1, ["a"] * 50, timeout_s=60, memory_gib=0.5, processes=1
    )
    item, (_, word, pid) = next(answers)
    assert (item, word) == (0, "a")
    assert Path("/proc", str(pid)).exists()
    answers.close()
    assert not Path("/proc", str(pid)).exists()


def test_a_hanging_file_is_given_up() -> None:
    first, second, third = run(["a", "hang", "b"], timeout_s=2.0, processes=1)
    assert (first[1], second, third[1]) == ("a", TOO_SLOW, "b")
    assert first[2] != third[2]


def test_an_unexpected_error_names_its_place_and_no_value() -> None:
    (result,) = run(["raise"])
    assert result["reason"] == "unexpected_error"
    assert "KeyError at made_up_tasks.py:" in result["place"]
    assert "Quernstein" not in str(result)


def test_decoders_cannot_print_and_cores_are_not_dumped(capfd: pytest.CaptureFixture[str]) -> None:
    _, core = run(["print", "core"])
    assert core == 0
    assert "Quernstein" not in "".join(capfd.readouterr())


def test_no_items_no_children_and_progress_is_told() -> None:
    assert run([]) == []
    told: list[tuple[int, int, str]] = []
    map_isolated(
        "made_up_tasks:work",
        None,
        ["a", "b", "abort"],
        timeout_s=60,
        memory_gib=0.5,
        report=lambda *a: told.append(a),
    )
    assert [t[:2] for t in told] == [(1, 3), (2, 3), (3, 3)]


def test_a_child_that_cannot_start_fails_the_step(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(StepFailed, match="could not start"):
        map_isolated("made_up_tasks:broken", None, ["a"], timeout_s=60, memory_gib=0.5)
    assert "no start" in capfd.readouterr().err
