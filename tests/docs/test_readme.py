"""The README is true: its Python runs, its commands exist, its picture and links are there."""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_python_block_runs_and_shows_coefficients() -> None:
    code = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert code is not None
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code[1], "README.md", "exec"), {})
    assert "C(sex)[T.m]" in printed.getvalue()
    assert "log_likelihood" in printed.getvalue()


def test_every_make_target_named_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"make ([a-z]+)", README)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_every_option_named_exists() -> None:
    help_text = subprocess.run(
        [sys.executable, "-m", "dure.cli", "try", "--help"], capture_output=True, text=True, check=True
    ).stdout
    for option in ("--hospital", "--outcome", "--time", "--terms", "--rules"):
        assert option in README
        assert option in help_text


def test_every_relative_link_resolves() -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        assert link.startswith("http") or (ROOT / link).exists(), link
