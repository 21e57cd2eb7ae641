import json

import numpy as np
import pandas as pd
import pytest

from imaging.manifest import STATISTICS
from monitoring.drift import comparable, differences, read_reference, read_traffic


def line(i, **changes):
    row = {
        "at": f"2026-01-01T00:00:{i:02d}Z",
        "request_id": str(i),
        "model_digest": "m1",
        "score": i / 100,
        "error": None,
        "tag": "live",
    }
    return json.dumps({**row, **changes}) + "\n"


@pytest.mark.parametrize("folder", [".", "captured"])
def test_only_the_latest_answers_of_this_model_to_live_requests_count(tmp_path, folder):
    captured = tmp_path / folder
    captured.mkdir(exist_ok=True)
    (captured / "b.jsonl").write_text("".join(line(i) for i in (3, 1, 2)))
    (captured / "a.jsonl").write_text(
        line(4, tag="replay")
        + line(5, model_digest="m0")
        + line(6, error="unreadable", score=None)
        + line(7)
        + line(8)[:20]  # being written right now
    )
    (captured / "c.jsonl").write_text("")
    traffic = read_traffic(tmp_path, "m1", ("live",), window=3)
    assert traffic.rows["request_id"].tolist() == ["2", "3", "7"]
    assert traffic.passed_over == {
        "unreadable": 1,
        "other tag": 1,
        "other model": 1,
        "error": 1,
        "before the window": 1,
    }
    both = read_traffic(tmp_path, "m1", ("live", "replay"), window=9)
    assert both.rows["request_id"].tolist() == ["1", "2", "3", "4", "7"]


def test_no_traffic_and_no_reference_are_answers(tmp_path):
    assert len(read_traffic(tmp_path, "m1", ("live",), 10).rows) == 0
    table, model_digest = read_reference(tmp_path)
    assert len(table) == 0
    assert model_digest is None


def compared(reference, current):
    columns, one_sided = comparable(pd.DataFrame(reference), pd.DataFrame(current))
    return {d.column: d for d in differences(columns)}, one_sided


def normal(seed, n, **changes):
    rng = np.random.default_rng(seed)
    table = {name: rng.normal(0.5, 0.1, n).astype("float32") for name in STATISTICS}
    return {**table, **changes}


def test_a_shift_is_found_and_measured_in_standard_deviations():
    shifted = normal(1, 400)
    shifted["noise_sigma"] = shifted["noise_sigma"] + 0.1
    found, _ = compared(normal(0, 400), shifted)
    assert found["noise_sigma"].p_value < 1e-9
    assert found["noise_sigma"].effect == pytest.approx(1.0, abs=0.15)
    assert found["sharpness"].p_value > 0.01
    assert found["sharpness"].effect < 0.2


def test_a_shift_far_below_a_thousandth_is_measured_too():
    rng = np.random.default_rng(0)
    old, new = rng.normal(2e-3, 1e-4, 300), rng.normal(2.1e-3, 1e-4, 300)
    found, _ = compared({"noise_sigma": old}, {"noise_sigma": new})
    assert found["noise_sigma"].effect == pytest.approx(1.0, abs=0.2)


def test_float32_in_the_reference_equals_float64_in_the_traffic():
    spacings = np.linspace(0.1, 0.2, 30)
    old = {"pixel_spacing_mm": np.repeat(spacings, 10).astype("float32")}
    found, _ = compared(old, {"pixel_spacing_mm": np.repeat(spacings, 10)})
    assert found["pixel_spacing_mm"].kind == "number"
    assert found["pixel_spacing_mm"].p_value == 1.0
    few = [0.143, 0.168]
    old = {"pixel_spacing_mm": np.array(few * 50, dtype="float32")}
    found, _ = compared(old, {"pixel_spacing_mm": few * 50})
    assert found["pixel_spacing_mm"].kind == "category"
    assert found["pixel_spacing_mm"].effect == 0.0


def test_a_category_that_the_reference_lacks_counts():
    old = {"manufacturer": ["A"] * 80 + ["B"] * 20, "rows": [64] * 100}
    new = {"manufacturer": ["A"] * 50 + ["C"] * 50, "rows": [64] * 50 + [65] * 50}
    found, _ = compared(old, new)
    for name in ("manufacturer", "rows"):
        assert found[name].p_value < 1e-6
        assert found[name].effect > 0.3
    # Once in a hundred requests is no news, whether or not the reference happened to see it.
    found, _ = compared({"manufacturer": ["A"] * 100}, {"manufacturer": ["A"] * 99 + ["C"]})
    assert found["manufacturer"].p_value > 0.1


def test_missing_values_are_a_category_unless_a_whole_side_lacks_them():
    rng = np.random.default_rng(0)
    spacing = rng.uniform(0.1, 0.2, 200)
    old = {"model_name": ["X"] * 200, "scanner": ["S"] * 200, "pixel_spacing_mm": spacing}
    new = {
        "model_name": ["X"] * 100 + [None] * 100,
        "scanner": [None] * 200,
        "pixel_spacing_mm": np.where(np.arange(200) < 100, spacing, np.nan),
        "view_position": ["AP"] * 200,
    }
    found, one_sided = compared(old, new)
    assert found["model_name"].p_value < 1e-9
    assert found["pixel_spacing_mm present"].p_value < 1e-9
    assert found["pixel_spacing_mm"].p_value > 0.01
    assert one_sided == ["scanner", "view_position"]
    assert not {"scanner", "view_position", "site"} & found.keys()


def test_a_statistic_without_any_spread_is_compared_all_the_same():
    old = {"border_mean": np.zeros(100)}
    same, _ = compared(old, {"border_mean": np.zeros(60)})
    assert (same["border_mean"].p_value, same["border_mean"].effect) == (1.0, 0.0)
    other, _ = compared(old, {"border_mean": np.full(60, 0.2)})
    assert other["border_mean"].p_value < 1e-9
    assert np.isfinite(other["border_mean"].effect)


def test_scores_of_training_images_are_left_out():
    scores = np.r_[np.full(300, np.nan), np.linspace(0, 1, 100)]
    found, _ = compared({"score": scores}, {"score": np.linspace(0, 1, 80)})
    assert found["score"].n_reference == 100
    assert found["score"].p_value > 0.9
