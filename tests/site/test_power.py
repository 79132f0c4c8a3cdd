"""What a hospital's call has done when it returns is on disk: a loss of power right afterwards takes nothing of it."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dure.guard.certificates import write_private
from dure.guard.permissions import owner
from dure.site import inbox, reviews
from dure.site.peers import Peers
from dure.site.settings import Site

BOSS = owner("Cleveland")


class Disk:
    """What is safe of the files in some folders: of each folder the names that lay in it, and of each file the bytes,
    when it was last synced. All else was in memory only."""

    def __init__(self, *folders: Path) -> None:
        self._bytes: dict[int, bytes] = {}
        self._names: dict[Path, dict[str, int]] = {}
        for folder in folders:
            for path in self._files(folder):
                self._bytes[path.stat().st_ino] = path.read_bytes()
            self._list(folder)

    def synced(self, file: int) -> None:
        about = os.fstat(file)
        for folder in self._names:
            if stat.S_ISDIR(about.st_mode) and folder.stat().st_ino == about.st_ino:
                self._list(folder)
            for path in self._files(folder):
                if path.stat().st_ino == about.st_ino:
                    self._bytes[about.st_ino] = path.read_bytes()

    def lose_power(self) -> None:
        for folder, names in self._names.items():
            for path in self._files(folder):
                path.unlink()
            for name, file in names.items():
                (folder / name).write_bytes(self._bytes.get(file, b""))

    def _files(self, folder: Path) -> list[Path]:
        return [path for path in folder.iterdir() if path.is_file()]

    def _list(self, folder: Path) -> None:
        self._names[folder] = {path.name: path.stat().st_ino for path in self._files(folder)}


@pytest.fixture
def losing_power(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Do something, and lose power in the moment it returns."""

    def after(done: Callable[[], Any], *folders: Path) -> None:
        disk, sync = Disk(*folders), os.fsync

        def synced(file: Any) -> None:
            sync(file)
            disk.synced(file)

        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", synced)
            done()
        disk.lose_power()

    return after


@pytest.fixture
def site(stage: Any, tmp_path: Path) -> Site:
    found: Site = stage.sites(tmp_path, "Cleveland")["Cleveland"]
    inbox.receive(found, stage.study("attrition"))
    return found


def approved(site: Site, stage: Any, hash_: str) -> None:
    for board in reviews.BOARDS:
        reviews.decide(site, hash_, BOSS, board, "approve", stage.methods)


def test_what_a_hospital_has_said_stays_said(stage: Any, site: Site, losing_power: Callable[..., None]) -> None:
    hash_ = stage.study("attrition").hash
    folder = site.folder / "inbox" / hash_.removeprefix("sha256:")
    losing_power(lambda: approved(site, stage, hash_), folder)
    assert inbox.own_permit(site, hash_) is not None
    losing_power(lambda: reviews.withdraw(site, hash_, BOSS, "A patient group objected."), folder)
    assert inbox.own_permit(site, hash_) is None
    assert inbox.answer_of(site, hash_).kind == "withdrawn"  # type: ignore[union-attr]
    assert inbox.left_at(site, hash_) is not None
    approved(site, stage, hash_)
    new = stage.study("attrition", "model").model_copy(update={"replaces": hash_})
    losing_power(lambda: inbox.receive(site, new), folder)
    assert inbox.replaced_by(site, hash_) == new.hash
    assert not (folder / "permit.json").exists()


def test_a_pause_stays_and_so_do_keys_of_others(site: Site, losing_power: Callable[..., None]) -> None:
    peers = Peers(site)
    for paused in (True, False):
        losing_power(lambda: inbox.pause(site, paused), site.folder)  # noqa: B023
        assert inbox.paused(site) is paused
        losing_power(lambda: peers.close(paused), site.folder)  # noqa: B023
        assert peers.closed is paused
    losing_power(lambda: peers.hold({"Seoul": bytes(32)}), site.folder)
    assert peers.known() == {"Seoul": bytes(32)}


def test_a_private_file_stays(tmp_path: Path, losing_power: Callable[..., None]) -> None:
    losing_power(lambda: write_private(tmp_path / "key", b"secret"), tmp_path)
    assert (tmp_path / "key").read_bytes() == b"secret"
