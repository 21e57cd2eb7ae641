import dataclasses

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from lineage.errors import BadInput, StepFailed
from training.fit import auroc, fit, predict_logits


def weights(fitted) -> dict[str, bytes]:
    return {k: v.numpy().tobytes() for k, v in fitted.network.state_dict().items()}


def test_learns_and_tells_how_it_goes(tiny, train, validation):
    told, logged = [], []
    fitted = fit(
        tiny(), train, validation, report=lambda *a: told.append(a), log=lambda *a: logged.append(a)
    )
    assert fitted.history[-1]["validation_auroc"] > 0.9
    assert not fitted.network.training
    assert [done for done, _, _ in told] == [h["epoch"] for h in fitted.history]
    assert all(total == 6 for _, total, _ in told)
    last = fitted.history[-1]
    expected = f"loss {last['validation_loss']:.3f} auroc {last['validation_auroc']:.3f}"
    assert told[-1][2] == expected
    assert [{"epoch": epoch, **metrics} for epoch, metrics in logged] == fitted.history


def test_the_same_seed_gives_the_same_bits_and_another_does_not(tiny, train, validation):
    runs = [fit(tiny(max_epochs=2, seed=s), train, validation) for s in (1, 1, 2)]
    assert weights(runs[0]) == weights(runs[1])
    assert runs[0].history == runs[1].history
    assert weights(runs[0]) != weights(runs[2])


def test_keeps_the_weights_of_the_lowest_loss_and_stops(tiny, train, validation):
    """On mislabelled validation images learning makes everything worse, so the start is best."""
    upside_down = dataclasses.replace(validation, labels=1 - validation.labels)
    fitted = fit(tiny(max_epochs=40, patience=3), train, upside_down)
    losses = [h["validation_loss"] for h in fitted.history]
    areas = [h["validation_auroc"] for h in fitted.history]
    best = int(np.argmin(losses))
    assert fitted.best_epoch == 1 + best
    improved = max(best, int(np.argmax(areas)))
    assert len(losses) == improved + 1 + 3 < 40
    logits = predict_logits(fitted.network, upside_down.pixels, torch.device("cpu"))
    area = auroc(logits[:, 1] - logits[:, 0], upside_down.labels)
    assert area == areas[best] > areas[-1]


def test_torch_is_left_as_it_was(tiny, train, validation):
    threads = torch.get_num_threads()
    fit(tiny(max_epochs=1, threads=threads + 1), train, validation)
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_loss_that_is_no_number_stops_the_step(tiny, train, validation):
    broken = dataclasses.replace(train, pixels=np.full_like(train.pixels, np.nan))
    with pytest.raises(StepFailed, match="no longer a number in epoch 1"):
        fit(tiny(), broken, validation)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_an_absent_gpu_is_said_before_training(tiny, train, validation):
    with pytest.raises(BadInput, match=r"training\.device: cuda .* sees no GPU"):
        fit(tiny(device="cuda"), train, validation)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_learns_on_a_gpu(tiny, train, validation):
    fitted = fit(tiny(device="cuda"), train, validation)
    assert fitted.history[-1]["validation_auroc"] > 0.9
    assert all(not p.is_cuda for p in fitted.network.parameters())


def test_auroc_is_the_area_ties_counted_half():
    rng = np.random.default_rng(0)
    scores, labels = rng.integers(0, 8, 100), rng.integers(0, 2, 100)
    assert auroc(scores, labels) == pytest.approx(roc_auc_score(labels, scores))
