"""A password asked on a real terminal: twice where it is new, and never shown."""

from __future__ import annotations

import io
import os
import pty
import select
import signal
import sys
import time
import unicodedata
from pathlib import Path

import pytest

from dure.cli import people
from dure.guard.accounts import Accounts
from dure.site.settings import create_site

GOOD = "five wild cranes over Suncheon"


class Terminal:
    """`dure …` in a process whose terminal is a pseudo-terminal of ours."""

    def __init__(self, *words: str, state: Path) -> None:
        self.shown = b""
        self.pid, self.end = pty.fork()
        if self.pid == 0:
            env = {**os.environ, "DURE_LANGUAGE": "en", "XDG_STATE_HOME": str(state), "TERM": "dumb", "COLUMNS": "200"}
            os.execve(sys.executable, [sys.executable, "-m", "dure.cli", *words], env)

    def until(self, words: str, seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while words.encode() not in self.shown:
            assert time.monotonic() < deadline, self.shown.decode(errors="replace")
            if select.select([self.end], [], [], 0.1)[0]:
                try:
                    self.shown += os.read(self.end, 4096)
                except OSError:  # the process has ended
                    break
        assert words.encode() in self.shown, self.shown.decode(errors="replace")
        self.shown = self.shown.split(words.encode(), 1)[1]

    def types(self, line: str) -> None:
        time.sleep(0.3)  # echo is switched off just after the question is printed
        os.write(self.end, line.encode() + b"\n")

    def ended(self) -> tuple[int, str]:
        """The exit code, and what was shown since the last question."""
        while select.select([self.end], [], [], 60)[0]:
            try:
                data = os.read(self.end, 4096)
            except OSError:
                break
            if not data:
                break
            self.shown += data
        else:
            os.kill(self.pid, signal.SIGKILL)
        _, status = os.waitpid(self.pid, 0)
        os.close(self.end)
        return os.waitstatus_to_exitcode(status), self.shown.decode(errors="replace")


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals")
def test_a_password_typed_on_the_terminal_is_asked_twice_and_not_shown(tmp_path: Path) -> None:
    folder, state = tmp_path / "site", tmp_path / "state"
    create_site(folder, "Hanbit")
    adding = Terminal("people", "add", str(folder), "Kim", "--role", "steward", state=state)
    adding.until("New password: ")
    adding.types(GOOD)
    adding.until("Once more: ")
    adding.types(GOOD + "x")
    adding.until("The two differ.")
    adding.until("New password: ")
    adding.types(GOOD)
    adding.until("Once more: ")
    adding.types(GOOD)
    code, shown = adding.ended()
    assert code == 0
    assert "Kim has an account" in shown
    assert GOOD not in shown
    entering = Terminal("sign-in", str(folder), "Kim", state=state)
    entering.until("Password: ")
    entering.types(GOOD)
    code, shown = entering.ended()
    assert (code, "Kim is signed in" in shown, GOOD in shown) == (0, True, False)
    assert len(list((state / "dure" / "sessions").iterdir())) == 1
    assert Accounts(folder).people()[0].name == "Kim"


def test_ctrl_c_at_the_question_adds_nobody(tmp_path: Path) -> None:
    folder = tmp_path / "site"
    create_site(folder, "Hanbit")
    adding = Terminal("people", "add", str(folder), "Kim", "--role", "steward", state=tmp_path)
    adding.until("New password: ")
    time.sleep(0.3)
    os.kill(adding.pid, signal.SIGINT)
    code, shown = adding.ended()
    assert code == 130
    assert "Stopped." in shown
    assert not Accounts(folder).exist()


def test_ones_own_name_in_another_spelling_is_still_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, new = tmp_path / "site", "seven quiet herons over Mokpo"
    create_site(folder, "Hanbit")
    accounts = Accounts(folder)
    accounts.add("김서연", "steward", GOOD, "Hanbit", "owner")
    accounts.add("박민수", "auditor", GOOD, "Hanbit", "김서연")
    monkeypatch.setenv("DURE_SESSION", accounts.sign_in("박민수", GOOD))
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{GOOD}\n{new}\n"))
    people.password(folder, unicodedata.normalize("NFD", "박민수"))
    accounts.prove("박민수", new)
