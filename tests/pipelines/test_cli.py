"""How the command ends when something goes wrong that nobody foresaw."""

import errno

import click
import pytest

from pipelines import cli as command


def ending(monkeypatch: pytest.MonkeyPatch, error: Exception) -> int:
    @click.group()
    def broken() -> None:
        raise error

    broken.add_command(click.Command("run"))
    monkeypatch.setattr(command, "cli", broken)
    monkeypatch.setattr("sys.argv", ["lightbox", "run"])
    monkeypatch.delenv("LIGHTBOX_DEBUG", raising=False)
    with pytest.raises(SystemExit) as exit:
        command.main()
    assert isinstance(exit.value.code, int)
    return exit.value.code


def test_a_full_disk_is_told_in_a_sentence(monkeypatch, capsys) -> None:
    assert ending(monkeypatch, OSError(errno.ENOSPC, "No space left on device")) == 1
    told = capsys.readouterr().err
    assert told.startswith("error: the workspace cannot be written (No space left on device)")


def test_an_unforeseen_error_quotes_nothing(monkeypatch, capsys) -> None:
    assert ending(monkeypatch, KeyError("Mueller^Hans")) == 1
    told = capsys.readouterr().err
    assert "KeyError at" in told
    assert "Mueller" not in told
