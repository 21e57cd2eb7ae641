from concurrent.futures import ThreadPoolExecutor

from evaluation.ledger import openings, record_opening


def test_every_opening_counts_and_nothing_is_lost(home):
    assert openings("set") == []
    record_opening("set", "model", None)
    record_opening("set", "model", "champion")
    record_opening("another set", "model", None)
    assert [entry["champion_digest"] for entry in openings("set")] == [None, "champion"]
    assert set(openings("set")[0]) == {
        "at",
        "model_digest",
        "champion_digest",
        "test_set_digest",
    }
    path = home.ledgers / "test_openings.jsonl"
    before = path.read_bytes()
    record_opening("set", "model", None)
    assert path.read_bytes().startswith(before)


def test_runs_side_by_side_do_not_mix(home):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: record_opening("set", f"model {i}" * 20, None), range(200)))
    assert len({entry["model_digest"] for entry in openings("set")}) == 200
