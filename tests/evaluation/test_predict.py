import json

import pandas as pd
import pytest
from tiny_models import make_model, png

from evaluation.predict import digest_of_test_set, load_champion, score_images
from lineage.errors import BadInput
from serving.predictor import Predictor


def test_each_image_is_read_once_and_scored_by_every_predictor(tmp_path):
    paths = []
    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(png(i))
        paths.append(f"{i}.png")
    one = Predictor.load(make_model(tmp_path / "one"))
    two = Predictor.load(make_model(tmp_path / "two", slope=-4.0))
    told = []
    scores = score_images(paths, tmp_path, [one, two], lambda *now: told.append(now))
    assert scores.shape == (3, 2)
    assert len(set(scores[:, 0])) == 3
    assert scores.sum(axis=1) == pytest.approx([1, 1, 1], abs=1e-6)
    assert told == [(1, 3, ""), (2, 3, ""), (3, 3, "")]
    assert score_images([], tmp_path, [one]).shape == (0, 1)


def test_an_empty_directory_is_no_champion_and_other_classes_are_refused(tmp_path):
    candidate = Predictor.load(make_model(tmp_path / "candidate"))
    (tmp_path / "none").mkdir()
    assert load_champion(tmp_path / "none", candidate) is None
    (tmp_path / "none" / ".lineage.json").write_text("{}")
    assert load_champion(tmp_path / "none", candidate) is None
    champion = make_model(tmp_path / "champion", slope=2.0)
    assert load_champion(champion, candidate).digest != candidate.digest
    card = json.loads((champion / "model.json").read_text())
    (champion / "model.json").write_text(json.dumps({**card, "classes": ["nodule", "normal"]}))
    with pytest.raises(BadInput, match="cannot be compared"):
        load_champion(champion, candidate)


def test_a_test_set_is_named_by_content_not_by_order():
    test = pd.DataFrame({"instance_uid": ["a", "b"], "patient_id": ["p", "q"], "label": [0, 1]})
    manifest = pd.DataFrame({"instance_uid": ["c", "b", "a"], "pixel_sha256": ["3", "2", "1"]})
    name = digest_of_test_set(test, manifest)
    assert digest_of_test_set(test.iloc[::-1], manifest) == name
    for column, value in (("label", [1, 1]), ("patient_id", ["p", "p"])):
        assert digest_of_test_set(test.assign(**{column: value}), manifest) != name
    assert digest_of_test_set(test, manifest.assign(pixel_sha256="9")) != name
    assert digest_of_test_set(test.iloc[:1], manifest) != name
