"""`dure audit`: what a person is told of a sound log, and of one that is not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dure.cli.commands import run
from dure.guard import tree_heads
from dure.guard.audit import AuditLog
from dure.guard.keys import read_signer
from dure.guard.tree_heads import HEADS, Heads
from dure.hub.authority import Authority, create_hub
from dure.study.permit import key_document

STUDY = "sha256:" + "ab" * 32


class Folders:
    """A hub's folder and a hospital's, which have seen each other's logs; no service runs."""

    def __init__(self, base: Path) -> None:
        from dure.site.settings import create_site

        self.hub = create_hub(base / "hub", "Alliance", "127.0.0.1", 8765)
        self.site = create_site(base / "north", "North")
        store = self.hub.open_store()
        Authority(self.hub, store).invite("South")
        key = key_document(self.site.signer().public_key)
        store.add_member("North", "m-1", "hospital", key, None)
        store.put_study(STUDY, json.dumps({"title": {"en": "Pressure", "ko": "혈압"}}), "submitted", "Researcher")
        store.put_answer(STUDY, "North", "declined", "", None)
        store.close()
        hub_key = self.hub.keys(lambda peer: None).public.hex()
        member = {"alliance": "Alliance", "hub_key": hub_key}
        (self.site.folder / "member.json").write_text(json.dumps(member), encoding="utf-8")
        self.site.audit.append("received", study=STUDY, title="Pressure")
        self.exchange()

    def exchange(self) -> None:
        signers = [read_signer(folder / "key.pem") for folder in (self.hub.folder, self.site.folder)]
        logs = [AuditLog(folder / "audit.jsonl") for folder in (self.hub.folder, self.site.folder)]
        hub = Heads(self.hub.folder, logs[0], "Alliance", signers[0])
        site = Heads(self.site.folder, logs[1], "North", signers[1])
        for one, other, name, who in ((hub, site, "North", "Alliance"), (site, hub, "Alliance", "North")):
            one.sign()
            mine, theirs = (signers[0], signers[1]) if one is hub else (signers[1], signers[0])
            receive = lambda body, o=other, w=who, m=mine: o.receive(w, m.public_key, body)  # noqa: E731
            assert one.show(name, theirs.public_key, receive)


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folders:
    monkeypatch.setattr(tree_heads, "EVERY", 0.0)
    monkeypatch.setenv("COLUMNS", "160")
    return Folders(tmp_path)


@pytest.fixture
def dure(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    def call(*arguments: object, language: str = "en") -> tuple[int, str, str]:
        monkeypatch.setenv("DURE_LANGUAGE", language)
        code = run([str(argument) for argument in arguments])
        shown = capsys.readouterr()
        return code, " ".join(shown.out.split()), " ".join(shown.err.split())

    return call


def cut(path: Path) -> None:
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:2]))


def test_a_sound_log_is_said_to_be_sound_and_by_whom_it_was_seen(folders: Folders, dure: Any) -> None:
    code, out, err = dure("audit", "verify", folders.hub.folder, "--against", folders.site.folder)
    assert (code, err) == (0, "")
    assert "Alliance: 4 lines, unbroken; signed heads that agree: 1." in out
    assert "North 4 0" in out
    assert "Nothing seen by north contradicts it." in out
    code, out, _ = dure("audit", "verify", folders.site.folder, language="ko")
    assert code == 0
    assert "North: 1줄, 끊김 없음" in out
    assert "Alliance 1 0" in out


def test_who_never_brought_a_proof_is_said(folders: Folders, dure: Any) -> None:
    folders.site.audit.append("no proof", of="Alliance", key="", seen={}, head={})
    code, out, _ = dure("audit", "verify", folders.site.folder)
    assert code == 0
    assert "! Alliance has shown states of its log without the proof" in out
    _, out, _ = dure("audit", "show", folders.site.folder, language="ko")
    assert "증명 없음" in out


def test_a_log_that_was_cut_is_an_error_in_both_languages(folders: Folders, dure: Any) -> None:
    cut(folders.hub.folder / "audit.jsonl")
    code, out, err = dure("audit", "verify", folders.hub.folder)
    assert (code, out) == (1, "")
    assert "log-forked" in err
    assert "the log of 2 lines does not begin with them" in err
    (folders.hub.folder / HEADS).unlink()
    code, out, _ = dure("audit", "verify", folders.hub.folder)
    assert code == 0
    assert "Nobody has countersigned this log" in out
    code, _, err = dure("audit", "verify", folders.hub.folder, "--against", folders.site.folder, language="ko")
    assert code == 1
    assert "그 줄들로 시작하지 않습니다" in err
    assert "north" in err


def test_a_changed_line_is_an_error(folders: Folders, dure: Any) -> None:
    path = folders.site.folder / "audit.jsonl"
    path.write_text(path.read_text(encoding="utf-8").replace("Pressure", "Weight"), encoding="utf-8")
    code, _, err = dure("audit", "verify", folders.site.folder)
    assert code == 1
    assert "ledger-broken" in err


def test_the_log_is_shown_line_by_line_and_by_study(folders: Folders, dure: Any) -> None:
    code, out, _ = dure("audit", "show", folders.hub.folder)
    assert code == 0
    for part in ("invited", "admitted", "submitted", "answered", "member North", "Pressure", "abababababab"):
        assert part in out
    _, out, _ = dure("audit", "show", folders.hub.folder, "--study", "abab", language="ko")
    assert "혈압" in out
    assert "초대" not in out
    _, out, _ = dure("audit", "show", folders.hub.folder, "--study", STUDY, "--json")
    assert out.count('"event"') == 2


def test_one_line_is_proved_to_somebody_without_the_log(
    folders: Folders, dure: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "proof.json"
    assert run(["audit", "prove", str(folders.hub.folder), "2"]) == 0
    file.write_text(capsys.readouterr().out, encoding="utf-8")
    code, out, _ = dure("audit", "check-proof", file)
    assert code == 0
    assert "Line 2 stands in the log of Alliance as it was at 4 lines" in out
    file.write_text(file.read_text(encoding="utf-8").replace('"number": 2', '"number": 1'), encoding="utf-8")
    code, _, err = dure("audit", "check-proof", file)
    assert code == 1
    assert "does not show" in err


def test_a_folder_with_nothing_in_it_is_said_to_have_no_log(dure: Any, tmp_path: Path) -> None:
    for command in ("verify", "show"):
        code, _, err = dure("audit", command, tmp_path)
        assert code == 1
        assert "file-missing" in err
