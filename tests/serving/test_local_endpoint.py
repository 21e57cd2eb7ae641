"""Real server processes on the loopback interface."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from tiny_models import make_model, png

from imaging.reading.pixels import PNG
from lineage.digest import tree_digest
from lineage.errors import StepFailed
from serving import local_endpoint
from serving.local_endpoint import LocalEndpoint


@pytest.fixture
def endpoint(home):
    made = LocalEndpoint(home, "chest")
    yield made
    made.stop()


def deploy(endpoint, directory, name="v1", share=1.0):
    digest = tree_digest(directory)
    endpoint.deploy(name, directory, digest, name[1:], share)
    return digest


def test_starts_once_and_stops(endpoint):
    assert endpoint.status() is None and endpoint.served() is None
    starts = [threading.Thread(target=endpoint.start) for _ in range(2)]
    for start in starts:
        start.start()
    for start in starts:
        start.join()
    address = endpoint.status()
    assert address is not None and endpoint.start() == address

    assert endpoint.served() == {}
    assert endpoint.stop() and endpoint.status() is None
    assert not endpoint.stop()
    os.waitpid(address.pid, 0)
    assert not Path(f"/proc/{address.pid}").exists()


def test_comes_back_as_it_was_or_not_at_all(endpoint, tmp_path):
    a = deploy(endpoint, make_model(tmp_path / "a"))
    b = deploy(endpoint, make_model(tmp_path / "b", slope=5), "v2", 0.25)
    assert endpoint.served() == {a: 0.75, b: 0.25}
    answer = endpoint.invoke(png(1), PNG)
    assert (answer.variant, answer.digest) in (("v1", a), ("v2", b)) and answer.error is None
    assert answer.label == ("nodule" if answer.score >= 0.5 else "normal") and not answer.sentence
    before = endpoint.status()
    os.kill(before.pid, 9)
    os.waitpid(before.pid, 0)
    assert endpoint.status() is None
    assert endpoint.invoke(png(1), PNG).error == "no answer"
    assert [(v.digest, v.share) for v in endpoint.state()] == [(a, 0.75), (b, 0.25)]
    assert endpoint.status().pid != before.pid

    # Half of a split must not get all of the traffic, and a changed model none.
    endpoint.stop()
    card = tmp_path / "a" / "model.json"
    card.write_text(card.read_text() + " ")
    assert endpoint.state() == ()
    nothing = endpoint.invoke(png(1), PNG)
    assert (nothing.error, nothing.sentence) == ("503", "no model is loaded")


def test_refuses_a_model_that_is_not_the_one_named(endpoint, tmp_path):
    with pytest.raises(StepFailed, match=r"422.*digest"):
        endpoint.deploy("v1", make_model(tmp_path / "m"), "0" * 64, "1", 1.0)
    assert endpoint.state() == ()


def test_leaves_alone_a_process_that_is_not_ours(endpoint):
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        endpoint.folder.mkdir(parents=True)
        note = {"host": "127.0.0.1", "port": 1, "pid": stranger.pid}
        (endpoint.folder / "endpoint.json").write_text(json.dumps(note))
        assert endpoint.status() is None
        assert not endpoint.stop()
        assert stranger.poll() is None
        assert endpoint.start().pid != stranger.pid
    finally:
        stranger.kill()
        stranger.wait()


def test_an_answer_under_another_token_is_not_ours(endpoint, home):
    endpoint.start()
    address = endpoint.status()
    (home.home / "secrets" / "endpoint.token").write_text("ab" * 32)
    assert LocalEndpoint(home, "chest").status() is None
    os.kill(address.pid, 15)
    os.waitpid(address.pid, 0)


def test_a_second_server_of_one_workspace_ends_at_once(endpoint, home):
    endpoint.start()
    command = [sys.executable, "-m", "serving.app", "--home", str(home.home), "--model", "chest"]
    second = subprocess.run(command, capture_output=True, text=True, check=False)
    assert second.returncode == 1 and "another endpoint" in second.stderr
    assert endpoint.status() is not None


def test_ends_by_itself_when_idle(home):
    endpoint = LocalEndpoint(home, "chest", idle_minutes=0.5 / 60)
    address = endpoint.start()
    os.waitpid(address.pid, 0)
    assert endpoint.status() is None and not (endpoint.folder / "endpoint.json").exists()


def test_a_server_that_hangs_is_ended_by_signal(endpoint, monkeypatch):
    monkeypatch.setattr(local_endpoint, "_STOP_TIMEOUT_S", 0.5)
    address = endpoint.start()
    os.kill(address.pid, 19)  # SIGSTOP
    time.sleep(0.05)
    assert LocalEndpoint(endpoint.place, "chest").stop()
    assert endpoint.status() is None
