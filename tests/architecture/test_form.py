"""The form of the code: short modules that say what they are for, names of the field, errors that are raised."""

from __future__ import annotations

import ast
import configparser
from functools import cache
from pathlib import Path

import pytest

import dure
from dure.errors import DureError, all_errors

SOURCE = Path(dure.__file__).parent
MODULES = sorted(SOURCE.rglob("*.py"))
NOT_THE_FIELDS = {
    "utils",
    "util",
    "common",
    "core",
    "helpers",
    "helper",
    "manager",
    "managers",
    "base",
    "misc",
    "shared",
}
LONG = {
    "errors.py": "every error in one place, so that the tree can be read as one",
}
PARENTS = {"DureError", "InputError", "DataError", "NotEstimable", "AccountError", "MembershipError", "SiteError"}
"""Classes of the tree that hold others together."""


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def name(path: Path) -> str:
    return str(path.relative_to(SOURCE))


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_a_module_says_first_what_it_is_for(path: Path) -> None:
    said = ast.get_docstring(tree(path))
    assert said
    assert said.split("\n\n")[0].rstrip().endswith((".", "`.", ":"))


def test_a_module_is_short_enough_to_hold_one_idea() -> None:
    lines = {name(path): len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}
    assert {path for path, count in lines.items() if count > 400} <= set(LONG)
    assert sorted(lines.values())[len(lines) // 2] <= 150


def test_names_are_the_fields_words() -> None:
    parts = {part for path in MODULES for part in path.relative_to(SOURCE).with_suffix("").parts}
    words = {word for part in parts for word in part.split("_")}
    assert words & NOT_THE_FIELDS == set()


def test_every_folder_is_a_package_so_that_the_contracts_see_it() -> None:
    folders = {path.parent for path in MODULES}
    assert [name(folder) for folder in folders if not (folder / "__init__.py").exists()] == []


def test_every_room_has_a_floor() -> None:
    contracts = configparser.ConfigParser()
    contracts.read(Path(__file__).parents[2] / ".importlinter", encoding="utf-8")
    placed = set(contracts["importlinter:contract:floors"]["layers"].replace("|", " ").split())
    rooms = {path.stem for path in SOURCE.glob("*.py")} | {path.parent.name for path in SOURCE.glob("*/__init__.py")}
    assert placed == rooms - {"__init__"}


@cache
def _mentioned() -> set[str]:
    """Names that some module other than errors.py calls (`raise X(...)`, `X(...)`) or catches."""
    found: set[str] = set()
    for path in MODULES:
        if path.name == "errors.py":
            continue
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                found.add(node.func.id)
    return found


@pytest.mark.parametrize("error", [error for error in all_errors() if error.__name__ not in PARENTS])
def test_every_error_is_raised_somewhere(error: type[DureError]) -> None:
    assert error.__name__ in _mentioned(), f"{error.__name__} is never made: take it out or raise it"


def test_parents_only_hold_others_together() -> None:
    known = {error.__name__: error for error in all_errors()}
    assert all(known[parent].__subclasses__() for parent in PARENTS)


@pytest.mark.parametrize("error", all_errors())
def test_every_error_has_three_sentences_in_both_languages(error: type[DureError]) -> None:
    for words in (error.what, error.why, error.remedy):
        assert words.en.strip()
        assert words.ko.strip()
    own = {part for part in ("what", "why", "remedy") if part in vars(error)}
    assert own in (set(), {"what", "why", "remedy"}), "half of its sentences are its parent's"


def test_the_errors_tree_in_the_docstring_is_the_tree() -> None:
    said = ast.get_docstring(tree(SOURCE / "errors.py")) or ""
    drawn = {word for line in said.splitlines() for word in line.replace("·", " ").split() if word[:1].isupper()}
    assert {error.__name__ for error in all_errors()} <= drawn
