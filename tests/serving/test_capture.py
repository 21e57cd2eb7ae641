import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from imaging.manifest import HEADER_FIELDS, STATISTICS
from serving.capture import Capture, Record

RECORD = Record(
    request_id="7d9f6d0e-5b4a-4c3f-8e0a-0d6f1f4c9a11",
    variant="v1",
    model_digest="d" * 64,
    score=0.25,
    latency_ms=3.14159,
    error=None,
    tag="live",
    statistics=dict.fromkeys(STATISTICS, 0.5),
    header={"modality": "DX", "manufacturer": "Acme (Berlin)", "rows": 64, "columns": 64},
)


def written(folder):
    (file,) = folder.glob("*.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_a_line_holds_the_allowed_fields_and_no_other(tmp_path):
    sneaky = replace(
        RECORD,
        header={**RECORD.header, "PatientName": "Ann", "patient_id": "7", "at": "then"},
        statistics={**RECORD.statistics, "birth_date": 19700101.0},
    )
    Capture(tmp_path / "c").write(sneaky)
    (line,) = written(tmp_path / "c")
    own = {"at", "request_id", "variant", "model_digest", "score", "latency_ms", "error", "tag"}
    assert set(line) == own | set(STATISTICS) | set(HEADER_FIELDS)
    assert "Ann" not in json.dumps(line) and line["at"] != "then"
    assert (line["manufacturer"], line["rows"], line["intensity_mean"]) == (
        "Acme (Berlin)",
        64,
        0.5,
    )
    assert line["latency_ms"] == 3.142


@pytest.mark.parametrize(
    "value",
    ["Doe^Ann", "x" * 65, "a\nb", "Zoë", "<b>", "", 7, None, ["Acme"], float("nan")],
)
def test_text_that_could_be_anything_is_left_out(tmp_path, value):
    header = {"manufacturer": value, "model_name": "Wren-3"}
    Capture(tmp_path / "c").write(replace(RECORD, header=header))
    (line,) = written(tmp_path / "c")
    assert line["manufacturer"] is None and line["model_name"] == "Wren-3"


@pytest.mark.parametrize("value", ["64", True, float("nan"), float("inf"), 1e300, None])
def test_only_finite_numbers_of_a_sane_size_count_as_numbers(tmp_path, value):
    Capture(tmp_path / "c").write(replace(RECORD, header={"rows": value}))
    assert written(tmp_path / "c")[0]["rows"] is None


def test_an_image_that_could_not_be_read_leaves_a_line_too(tmp_path):
    failed = replace(RECORD, score=None, error="bad_input", statistics={}, header={})
    Capture(tmp_path / "c").write(failed)
    (line,) = written(tmp_path / "c")
    assert line["error"] == "bad_input" and line["score"] is None and line["entropy_bits"] is None


def test_lines_of_many_threads_stay_whole(tmp_path):
    capture = Capture(tmp_path / "c")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: capture.write(replace(RECORD, score=float(i))), range(200)))
    assert sorted(line["score"] for line in written(tmp_path / "c")) == list(range(200))


def test_only_the_owner_reads_them(tmp_path):
    Capture(tmp_path / "c").write(RECORD)
    (file,) = (tmp_path / "c").glob("*.jsonl")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "c").stat().st_mode) == 0o700


def test_a_line_that_does_not_fit_leaves_no_half(tmp_path, monkeypatch):
    capture = Capture(tmp_path / "c")
    capture.write(RECORD)
    whole = os.write
    monkeypatch.setattr(os, "write", lambda file, data: whole(file, data[:40]))  # a full disk
    with pytest.raises(OSError, match="whole"):
        capture.write(RECORD)
    monkeypatch.undo()
    capture.write(RECORD)
    assert len(written(tmp_path / "c")) == 2


def test_what_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "c").write_text("a file where the folder must be")
    with pytest.raises(OSError):
        Capture(tmp_path / "c").write(RECORD)
