import getpass
import json
from concurrent.futures import ThreadPoolExecutor

from lineage.openings import openings, record_opening


def test_every_opening_counts_and_nothing_is_lost(home):
    assert openings("set") == []
    record_opening("set", "model", None, "first look")
    record_opening("set", "model", "champion", "again")
    record_opening("another set", "model", None, "elsewhere")
    assert [entry["champion_digest"] for entry in openings("set")] == [None, "champion"]
    assert [entry["reason"] for entry in openings("set")] == ["first look", "again"]
    assert set(openings("set")[0]) == {
        "at",
        "actor",
        "reason",
        "model_digest",
        "champion_digest",
        "test_set_digest",
    }
    before = {path: path.read_bytes() for path in home.ledgers.rglob("*.json")}
    record_opening("set", "model", None, "once more")
    assert before.items() < {p: p.read_bytes() for p in home.ledgers.rglob("*.json")}.items()


def test_it_says_who(home, monkeypatch):
    record_opening("set", "model", None, "by hand")
    monkeypatch.setenv("LIGHTBOX_STATE", "s3://bucket/state")
    record_opening("set", "model", None, "in a job")
    actors = [entry["actor"] for entry in openings("set")]
    assert actors == [f"person:{getpass.getuser()}", "step:evaluate"]


def test_openings_from_before_there_was_a_file_for_each_still_count(home):
    line = {"at": "2026-01-01T00:00:00+00:00", "model_digest": "m", "champion_digest": None}
    home.ledgers.mkdir(parents=True)
    lines = [json.dumps(line | {"test_set_digest": name}) for name in ("set", "other")]
    (home.ledgers / "test_openings.jsonl").write_text("\n".join(lines) + "\n")
    record_opening("set", "newer", None, "now")
    assert [entry["model_digest"] for entry in openings("set")] == ["m", "newer"]
    assert [entry["reason"] for entry in openings("set")] == [None, "now"]


def test_runs_side_by_side_do_not_mix(home):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: record_opening("set", f"model {i}" * 20, None, "x"), range(200)))
    assert len({entry["model_digest"] for entry in openings("set")}) == 200
