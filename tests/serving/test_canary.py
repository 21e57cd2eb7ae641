"""Whole canaries against a real endpoint."""

import pytest
from tiny_models import make_model, png

from imaging.reading.pixels import PNG, decode
from lineage.digest import tree_digest
from lineage.errors import StepFailed
from lineage.workspace import Workspace
from serving.canary import Release, Study, restore, run_canary
from serving.config import DeploymentConfig
from serving.local_endpoint import LocalEndpoint
from serving.predictor import Predictor


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("canary")


@pytest.fixture(scope="module")
def endpoint(folder):
    made = LocalEndpoint(Workspace(folder / "home"), "chest", timeout_s=10)
    yield made
    made.stop()


@pytest.fixture(scope="module")
def pictures(folder):
    paths = [folder / f"{seed}.png" for seed in range(40)]
    for seed, path in enumerate(paths):
        path.write_bytes(png(seed))
    return paths


@pytest.fixture(scope="module")
def champion(folder):
    return release("1", make_model(folder / "champion"))


@pytest.fixture
def in_service(endpoint, champion):
    restore(endpoint, champion)
    return endpoint


def release(version, directory):
    return Release(version, tree_digest(directory), directory)


def studies(pictures, directory):
    """Replays with the scores that the model in `directory` gives offline."""
    model = Predictor.load(directory)
    return [Study(p, PNG, model.predict(decode(p.read_bytes(), PNG))) for p in pictures]


FAST = DeploymentConfig(rate_per_s=1000, requests_per_step=35, timeout_s=10, latency_slack_ms=25)


def serves(endpoint, wanted):
    state = [(v.name, v.digest, v.share) for v in endpoint.state()]
    return state == ([(wanted.variant, wanted.digest, 1.0)] if wanted else [])


def test_a_good_challenger_is_released(in_service, champion, pictures, tmp_path):
    new = release("2", make_model(tmp_path / "m", slope=4.5))
    told = []
    outcome = run_canary(
        in_service,
        new,
        champion,
        studies(pictures, new.directory),
        FAST,
        lambda done, total, note: told.append((done, total, note)),
    )
    assert outcome.kind == "released", outcome.reason
    assert serves(in_service, new) and outcome.end_state[0].digest == new.digest
    assert [look.share for look in outcome.looks][:3] == [0.1, 0.5, 1.0]
    assert all(look.challenger_answers >= 35 for look in outcome.looks)
    # Ten per cent of the traffic is what the first step costs the champion's callers.
    assert outcome.looks[0].challenger_answers < 0.3 * outcome.looks[0].requests
    assert told[-1][0] == told[-1][1] and "v2" in told[-1][2]


@pytest.mark.parametrize(
    ("fault", "named"),
    [
        ({"breaks_above": 0.55}, "errors"),
        ({"centre": 0.0, "slope": 40.0}, "flags"),
        ({"matmuls": 30}, "latency"),
    ],
)
def test_a_bad_challenger_is_rolled_back(in_service, champion, pictures, tmp_path, fault, named):
    new = release("2", make_model(tmp_path / "m", **fault))
    without_offline = [Study(p, PNG) for p in pictures]
    outcome = run_canary(in_service, new, champion, without_offline, FAST)
    assert outcome.kind == "rolled back" and named in outcome.reason
    assert serves(in_service, champion) and outcome.mismatch is None


def test_scores_that_differ_from_those_offline_are_rolled_back(
    in_service, champion, pictures, tmp_path
):
    new = release("2", make_model(tmp_path / "m"))
    skewed = studies(pictures, make_model(tmp_path / "other", slope=4.01))
    outcome = run_canary(in_service, new, champion, skewed, FAST)
    assert outcome.kind == "rolled back" and "skew" in outcome.reason
    assert len(outcome.looks) == 1 and serves(in_service, champion)


def test_a_challenger_that_does_not_load_changes_nothing(in_service, champion, pictures, tmp_path):
    new = release("2", make_model(tmp_path / "m"))
    (new.directory / "model.json").write_text("{}")
    outcome = run_canary(in_service, new, champion, [Study(pictures[0], PNG)], FAST)
    assert outcome.kind == "rolled back" and "digest" in outcome.reason
    assert serves(in_service, champion)


def test_no_traffic_holds(in_service, champion, tmp_path):
    new = release("2", make_model(tmp_path / "m"))
    outcome = run_canary(in_service, new, champion, [], FAST)
    assert outcome.kind == "held" and serves(in_service, champion)


def test_an_undecided_canary_is_held(in_service, champion, pictures, tmp_path):
    new = release("2", make_model(tmp_path / "m"))
    strict = FAST.model_copy(update={"error_margin": 0.01, "extensions": 1})
    outcome = run_canary(in_service, new, champion, studies(pictures, new.directory), strict)
    assert outcome.kind == "held" and "errors" in outcome.reason
    assert len(outcome.looks) == 4 and serves(in_service, champion)


def test_a_first_release_passes_or_leaves_nothing(endpoint, pictures, tmp_path):
    stray = release("9", make_model(tmp_path / "stray"))
    for name in ("v8", "v9"):  # of no use, as nothing is champion
        endpoint.deploy(name, stray.directory, stray.digest, name[1:], 1.0)
    restore(endpoint, None)
    assert serves(endpoint, None)
    new = release("1", make_model(tmp_path / "m"))
    fair, skewed = (
        studies(pictures, new.directory),
        [Study(p, PNG, 0.123) for p in pictures],
    )
    assert run_canary(endpoint, new, None, skewed, FAST).kind == "rolled back"
    assert serves(endpoint, None)
    assert run_canary(endpoint, new, None, fair, FAST).kind == "released"
    assert serves(endpoint, new)


def test_what_an_interrupted_canary_left_is_cleared(in_service, champion, pictures, tmp_path):
    stray = release("9", make_model(tmp_path / "stray"))
    in_service.deploy(stray.variant, stray.directory, stray.digest, "9", 0.4)
    in_service.deploy("v8", stray.directory, stray.digest, "8", 0.3)
    new = release("2", make_model(tmp_path / "m"))
    outcome = run_canary(in_service, new, champion, studies(pictures, new.directory), FAST)
    assert outcome.kind == "released" and serves(in_service, new)


class Broken(LocalEndpoint):
    """Serves as the real one; once the walk is done, one verb no longer does what it says."""

    def shift(self, shares):
        if shares.get("v2") == 1.0:
            raise StepFailed("shares cannot be set")
        super().shift(shares)


class Forgetful(LocalEndpoint):
    """Says that it removed a variant and keeps it."""

    def remove(self, variant):
        pass


def test_a_target_that_breaks_on_the_way_is_rolled_back(in_service, champion, pictures, tmp_path):
    broken = Broken(in_service.place, in_service.model, timeout_s=10)
    new = release("2", make_model(tmp_path / "m"))
    outcome = run_canary(broken, new, champion, studies(pictures, new.directory), FAST)
    assert outcome.kind == "rolled back" and "shares cannot be set" in outcome.reason
    assert serves(in_service, champion)


def test_an_end_state_that_is_not_as_wanted_is_a_failure(in_service, champion, pictures, tmp_path):
    forgetful = Forgetful(in_service.place, in_service.model, timeout_s=10)
    new = release("2", make_model(tmp_path / "m"))
    outcome = run_canary(forgetful, new, champion, studies(pictures, new.directory), FAST)
    assert outcome.kind == "unknown"
    assert "after the release" in outcome.reason and "v2 at 0%" in outcome.mismatch


def test_a_crash_of_the_server_is_rolled_back(in_service, champion, pictures, tmp_path):
    import os

    new = release("2", make_model(tmp_path / "m"))
    pid = in_service.status().pid

    def kill_once(done, total, note):
        if done == 20 and in_service.status() and in_service.status().pid == pid:
            os.kill(pid, 9)
            os.waitpid(pid, 0)

    outcome = run_canary(
        in_service, new, champion, studies(pictures, new.directory), FAST, kill_once
    )
    assert outcome.kind == "rolled back" and "errors" in outcome.reason
    assert serves(in_service, champion)
