"""Nothing here tells anybody what is done."""

import os

from lineage import telemetry
from lineage.code import PACKAGES, ROOT


def test_it_is_off_whatever_was_set(monkeypatch) -> None:
    for name in telemetry.OFF:
        monkeypatch.setenv(name, "nonsense")
    telemetry.off()
    assert {name: os.environ[name] for name in telemetry.OFF} == telemetry.OFF


def test_it_is_said_in_one_place() -> None:
    sources = {p for package in PACKAGES for p in (ROOT / package).rglob("*.py")}
    sources.remove(ROOT / "lineage" / "telemetry.py")
    assert not [p for p in sources if any(name in p.read_text() for name in telemetry.OFF)]
