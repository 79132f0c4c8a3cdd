"""`dure site unlock`: who is locked out, and how the board lets them ask again."""

from __future__ import annotations

from pathlib import Path

import pytest

from dure.cli.commands import run
from dure.guard.rules import DEFAULT
from dure.site.history import HistoryStore
from dure.site.settings import create_site


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    create_site(tmp_path / "site", "Hanbit")
    store = HistoryStore(tmp_path / "site" / "history.db")
    for number in range(7):
        store.note_alike("Kim", f"study {number}", "an equivalent question", DEFAULT)
    store.close()
    return tmp_path / "site"


@pytest.mark.parametrize(("language", "said"), [("en", "Unlocked: Kim"), ("ko", "잠금을 풀었습니다: Kim")])
def test_a_lockout_is_listed_and_lifted(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, language: str, said: str
) -> None:
    monkeypatch.setenv("DURE_LANGUAGE", language)
    assert run(["site", "unlock", str(folder)]) == 0
    assert capsys.readouterr().out.startswith("Kim ")
    assert run(["site", "unlock", str(folder), "Kim"]) == 0
    assert said in capsys.readouterr().out
    assert run(["site", "unlock", str(folder)]) == 0
    assert capsys.readouterr().out == ""


def test_somebody_who_is_not_locked_out_is_said_not_to_be(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DURE_LANGUAGE", "en")
    assert run(["site", "unlock", str(folder), "Lee"]) == 0
    assert "Nobody called 'Lee'" in capsys.readouterr().out
