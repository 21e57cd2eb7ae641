"""Against oracles that share no code with ours: sklearn, statsmodels, and U-statistics by loops."""

import math
from itertools import product

import numpy as np
import pytest
from scipy.stats import t as student

from evaluation.intervals import auroc, auroc_difference, proportion


def cohort(seed: int, patients: int = 40, images: int = 2, mixed: bool = False, digits: int = 1):
    """Labels, rounded scores (so that there are ties), a second model's scores, patients."""
    rng = np.random.default_rng(seed)
    who = np.repeat(np.arange(patients), rng.integers(1, images + 1, patients))
    labels = rng.random(len(who)) < 0.4 if mixed else (rng.random(patients) < 0.4)[who]
    shared = rng.standard_normal(patients)[who]
    one, other = (shared + rng.standard_normal(len(who)) + 1.5 * labels for _ in range(2))
    return labels.astype(int), one.round(digits), other.round(digits), who


def order(positive: float, negative: float) -> float:
    return 1.0 if positive > negative else 0.5 if positive == negative else 0.0


def obuchowski(labels, scores, who) -> tuple[float, float]:
    """AUROC and its variance by Obuchowski (1997), formula by formula."""
    cases = list(zip(labels, scores, who, strict=True))
    x = [(s, w) for y, s, w in cases if y]
    y = [(s, w) for y, s, w in cases if not y]
    m, n = len(x), len(y)
    area = sum(order(a, b) for (a, _), (b, _) in product(x, y)) / (m * n)
    v10 = [(sum(order(a, b) for b, _ in y) / n, w) for a, w in x]
    v01 = [(sum(order(a, b) for a, _ in x) / m, w) for b, w in y]
    ten = {w: sum(v - area for v, u in v10 if u == w) for w in {w for _, w in v10}}
    one = {w: sum(v - area for v, u in v01 if u == w) for w in {w for _, w in v01}}
    everyone = set(ten) | set(one)
    s10 = len(ten) / ((len(ten) - 1) * m) * sum(v**2 for v in ten.values())
    s01 = len(one) / ((len(one) - 1) * n) * sum(v**2 for v in one.values())
    s11 = sum(ten.get(w, 0) * one.get(w, 0) for w in everyone)
    s11 *= len(everyone) / (len(everyone) - 1)
    return area, s10 / m + s01 / n + 2 * s11 / (m * n)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("mixed", [False, True])
def test_auroc_is_that_of_sklearn_ties_included(seed, mixed):
    from sklearn.metrics import roc_auc_score

    labels, scores, _, who = cohort(seed, mixed=mixed)
    assert auroc(labels, scores, who).estimate == pytest.approx(roc_auc_score(labels, scores))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("images", "mixed"), [(1, False), (2, False), (3, True)])
def test_auroc_interval_is_obuchowskis_variance_on_the_logit_scale(seed, images, mixed):
    labels, scores, _, who = cohort(seed, images=images, mixed=mixed)
    area, variance = obuchowski(labels, scores, who)
    smaller = min(len(set(who[labels == side])) for side in (0, 1))
    half = student.ppf(0.975, smaller - 1) * math.sqrt(variance) / (area * (1 - area))
    expected = [1 / (1 + math.exp(-(math.log(area / (1 - area)) + s * half))) for s in (-1, 1)]
    found = auroc(labels, scores, who)
    assert [found.low, found.high] == pytest.approx(expected, abs=1e-10)
    assert (found.n, found.n_patients) == (len(who), len(set(who)))


def test_with_one_image_per_patient_the_variance_is_delongs():
    """DeLong (1988): var = S10/m + S01/n, with plain sample variances of the placements."""
    labels, scores, _, who = cohort(1, images=1)
    x, y = scores[labels == 1], scores[labels == 0]
    psi = np.array([[order(a, b) for b in y] for a in x])
    delong = psi.mean(1).var(ddof=1) / len(x) + psi.mean(0).var(ddof=1) / len(y)
    assert obuchowski(labels, scores, who)[1] == pytest.approx(delong)


def test_copies_of_images_add_no_certainty():
    labels, scores, _, who = cohort(2, images=1)
    once = auroc(labels, scores, who)
    thrice = auroc(*(np.repeat(a, 3) for a in (labels, scores, who)))
    as_if_independent = auroc(np.repeat(labels, 3), np.repeat(scores, 3), np.arange(3 * len(who)))
    assert (thrice.low, thrice.high) == pytest.approx((once.low, once.high))
    assert as_if_independent.high - as_if_independent.low < 0.7 * (once.high - once.low)


def test_identifiers_and_row_order_do_not_matter():
    labels, scores, other, who = cohort(3)
    shuffled = np.random.default_rng(0).permutation(len(who))
    names = np.array([f"patient {99 - w}" for w in who], dtype=object)
    for measure, columns in (
        (auroc, (labels, scores)),
        (auroc_difference, (labels, scores, other)),
    ):
        one = measure(*columns, who)
        two = measure(*(c[shuffled] for c in columns), names[shuffled])
        assert (two.estimate, two.low, two.high) == pytest.approx((one.estimate, one.low, one.high))


def test_perfect_separation_has_an_exact_limit_and_says_so():
    found = auroc([1] * 20 + [0] * 30, [0.9] * 20 + [0.1] * 30, range(50))
    assert (found.estimate, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(0.025 ** (1 / 20))  # Clopper-Pearson for 20 of 20
    assert "perfect separation" in found.method
    mirrored = auroc([0] * 20 + [1] * 30, [0.9] * 20 + [0.1] * 30, range(50))
    assert (mirrored.low, mirrored.estimate, mirrored.high) == (0.0, 0.0, 1 - found.low)
    both = auroc([1, 0] * 10, [0.9, 0.1] * 10, np.repeat(range(10), 2))
    assert both.low == pytest.approx(0.025 ** (1 / 5))  # ten patients make five disjoint pairs


@pytest.mark.parametrize(
    ("labels", "scores", "who", "reason"),
    [
        ([], [], [], "no images"),
        ([1, 1, 1], [0.1, 0.2, 0.3], [1, 2, 3], "only one class"),
        ([0, 0], [0.1, 0.2], [1, 2], "only one class"),
        ([1, 1, 0, 0], [0.1, 0.9, 0.2, 0.3], [1, 1, 2, 3], "n too small: 1 patients"),
        ([1, 1, 0, 0], [0.5] * 4, [1, 2, 3, 4], "do not vary"),
    ],
)
def test_no_number_without_an_interval(labels, scores, who, reason):
    for found in (auroc(labels, scores, who), auroc_difference(labels, scores, scores, who)):
        assert (found.estimate, found.low, found.high) == (None, None, None)
        assert reason in found.reason
        assert found.n == len(labels)


@pytest.mark.parametrize("seed", range(3))
def test_difference_uses_the_clustered_covariance(seed):
    labels, one, other, who = cohort(seed, patients=80)
    found = auroc_difference(labels, one, other, who)
    a, b = auroc(labels, one, who), auroc(labels, other, who)
    va, vb = obuchowski(labels, one, who)[1], obuchowski(labels, other, who)[1]
    # cov(A, B) from the variance of the mean placement: polarisation, by a third loop.
    covariance = _covariance_by_loops(labels, one, other, who)
    r = covariance / math.sqrt(va * vb)
    down, up = a.estimate - a.low, b.high - b.estimate
    assert found.estimate == pytest.approx(a.estimate - b.estimate)
    assert found.low == pytest.approx(
        found.estimate - math.sqrt(down**2 + up**2 - 2 * r * down * up)
    )
    down, up = b.estimate - b.low, a.high - a.estimate
    assert found.high == pytest.approx(
        found.estimate + math.sqrt(down**2 + up**2 - 2 * r * down * up)
    )


def _covariance_by_loops(labels, one, other, who) -> float:
    positives, negatives = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
    m, n = len(positives), len(negatives)
    total = 0.0
    sums = []
    for scores in (one, other):
        psi = np.array([[order(scores[i], scores[j]) for j in negatives] for i in positives])
        area = psi.mean()
        ten = {w: sum(psi[who[positives] == w].mean(1) - area) for w in set(who[positives])}
        zero = {w: sum(psi[:, who[negatives] == w].mean(0) - area) for w in set(who[negatives])}
        sums.append((ten, zero))
    for side, count in ((0, m), (1, n)):
        k = len(sums[0][side])
        products = sum(sums[0][side][w] * sums[1][side][w] for w in sums[0][side])
        total += k / (k - 1) * products / count**2
    return total  # no patient is in both classes here, so there is no cross term


def test_a_paired_difference_is_tighter_than_an_unpaired_one():
    labels, one, _, who = cohort(4, patients=100)
    nearly = one + np.random.default_rng(0).normal(0, 0.2, len(one))
    paired = auroc_difference(labels, one, nearly, who)
    single = auroc(labels, one, who)
    assert paired.low <= paired.estimate <= paired.high
    assert paired.high - paired.low < 0.6 * math.sqrt(2) * (single.high - single.low)


def test_the_difference_of_two_perfect_models_is_not_certain():
    labels = [1] * 20 + [0] * 20
    perfect = [0.9] * 20 + [0.1] * 20
    found = auroc_difference(labels, perfect, perfect, range(40))
    assert found.estimate == 0
    assert found.low < -0.1


@pytest.mark.parametrize(("successes", "n"), [(0, 30), (1, 30), (17, 30), (30, 30), (95, 100)])
def test_proportion_with_one_image_each_is_wilsons(successes, n):
    from statsmodels.stats.proportion import proportion_confint

    found = proportion([1] * successes + [0] * (n - successes), range(n))
    expected = proportion_confint(successes, n, method="wilson")
    assert (found.low, found.high) == pytest.approx(expected, abs=1e-12)
    assert found.estimate == successes / n


def test_proportion_counts_patients_when_their_images_agree():
    x = np.array([1] * 25 + [0] * 15)
    once = proportion(x, range(40))
    often = proportion(np.repeat(x, 4), np.repeat(range(40), 4))
    assert often.estimate == once.estimate
    # The rest is Korn and Graubard's correction: t on 159 against t on 39 degrees of freedom.
    assert often.high - often.low == pytest.approx(once.high - once.low, rel=0.04)
    assert (often.n, often.n_patients) == (160, 40)


def test_proportion_without_a_failure_counts_patients():
    found = proportion([1] * 60, np.repeat(range(20), 3))
    assert found.high == found.estimate == 1
    assert found.low <= proportion([1] * 20, range(20)).low


def test_proportion_takes_no_credit_for_chance_negative_correlation():
    x = [1, 0] * 20  # each patient has one of each
    assert proportion(x, np.repeat(range(20), 2)).low <= proportion(x, range(40)).low


def test_proportion_of_nobody_and_of_one():
    assert proportion([], []).reason == "n too small: 0 patients, 2 needed"
    assert proportion([1, 0], ["a", "a"]).estimate is None
    assert proportion([1, 0, 1], [1, 2, 3], minimum=4).estimate is None
