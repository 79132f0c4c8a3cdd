"""Without the extra `flare`, everything on one machine works, and what needs it says how to install it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BLOCKED = "import sys; sys.modules['nvflare'] = None; from dure.cli import main; sys.argv[0] = 'dure'; main()"


def dure(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", BLOCKED, *arguments], capture_output=True, text=True, timeout=120)


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    made = dure("hub", "init", str(tmp_path / "hub"), "--host", "127.0.0.1")
    assert made.returncode == 0, made.stderr
    return tmp_path / "hub"


def test_serving_names_the_package_and_the_extra(hub: Path) -> None:
    found = dure("hub", "serve", str(hub))
    assert found.returncode == 1
    assert "nvflare" in found.stderr
    assert 'pip install "dure[flare]"' in found.stderr
    assert "Traceback" not in found.stderr


def test_so_does_enrolling_in_korean_too(hub: Path, tmp_path: Path) -> None:
    invited = dure("hub", "invite", str(hub), "서울대학교병원", "--out", str(tmp_path / "token"))
    assert invited.returncode == 0, invited.stderr
    found = dure("--language", "ko", "site", "enrol", str(tmp_path / "token"), "--folder", str(tmp_path / "site"))
    assert found.returncode == 1
    assert "dure[flare]" in found.stderr
    assert "패키지가 필요합니다" in found.stderr


def test_the_office_works_without_it(hub: Path) -> None:
    assert dure("hub", "members", str(hub)).returncode == 0
    assert dure("hub", "status", "--store", str(hub)).returncode == 0
