"""Marked patients at every hospital, every method run between real processes, and every place outside the hospitals
searched for them: the hub's store and memory, the traffic, the logs, the results. Nothing is found; and the same search
of the same run without gate and masks finds them, else these tests fail."""

from __future__ import annotations

import base64
import contextlib
import importlib.util
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from dure.study.method import installed_methods

pytest.importorskip("nvflare", reason="services between hospitals need the extra 'flare'")

from .canary import hospitals
from .canary.searching import Finds, Marks, distinctive, report, search
from .canary.town import Parts, Town, memory_of, of_parts, of_patients, services

MEMORY = "hub's memory"
CANNOT: dict[str, str] = {}
"""Installed methods that cannot run on these hospitals, and why. A test fails when one of them runs after all."""
NEEDS = {"training": "torch"}
"""Methods that need a package which may be absent."""
FOUND_AT_HUB = (MEMORY, "hub's store", "frames inside TLS")
"""Places where the run without gate and masks must show marks of patients."""


@dataclass(frozen=True)
class Played:
    """A run, and what the search found: place → finds, of patients and of hospitals' parts."""

    patients: dict[str, Finds]
    parts: dict[str, Finds]
    of: Parts
    sizes: dict[str, int]
    steps: dict[str, str]
    memory: str
    """Why the hub's memory was not searched; empty where it was."""


def play(folder: Path, open_: bool, *steps: str) -> Played:
    """The study of these steps (or all) between processes, and the search while the hub is alive."""
    study = hospitals.study(*steps)
    if not steps:
        absent = {name for name, package in NEEDS.items() if not _installed(package)}
        kept = [step for step in study.steps if step.method not in absent]
        kept = [step for step in kept if step.method in installed_methods() or step.method == "leaking"]
        study = study.model_copy(update={"steps": tuple(kept)})
    town = Town(folder, open_)
    with contextlib.closing(town):
        patients = of_patients(town.open_hospitals())
        services.until(lambda: (town.hub.folder / "hub.db").exists())
        hub = town.processes["hub"].pid
        memory = ""
        try:
            found = search(memory_of(hub), patients, unpack=False, short=False)
            assert not found, f"marks that are there before the run mark nothing: {found}"
        except PermissionError as error:
            memory = f"this computer shows no other process's memory ({error.strerror})"
        before = {place: search(pieces, patients) for place, pieces in town.places().items()}
        assert not any(before.values()), report(before)
        town.play(study, 400)
        parts = of_parts(town, study)
        places = town.places() if memory else {MEMORY: memory_of(hub), **town.places()}
        finds, sizes = {}, {}
        for place, pieces in places.items():
            counted = _Counted(pieces)
            here = place == MEMORY
            finds[place] = search(counted, patients + parts.marks, unpack=not here, short=not here)
            sizes[place] = counted.bytes
        with town.researcher() as alliance:
            told = alliance.status(study.hash)["steps"]
    of_part = {place: {what: n for what, n in found.items() if "part of " in what} for place, found in finds.items()}
    of_patient = {
        place: {what: n for what, n in found.items() if "part of " not in what} for place, found in finds.items()
    }
    played = Played(of_patient, of_part, parts, sizes, told, memory)
    print(
        f"searched {sizes} for {len(patients.values)} numbers of patients and {len(parts.marks.values)} of parts; "
        f"parts not searched for: {parts.left_out}. {memory}"
    )
    return played


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


class _Counted:
    """Pieces, and how many bytes they were."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self.pieces, self.bytes = pieces, 0

    def __iter__(self) -> Iterator[bytes]:
        for piece in self.pieces:
            self.bytes += len(piece)
            yield piece


Plays = Callable[[bool, str], Played]


@pytest.fixture(scope="module")
def plays(tmp_path_factory: pytest.TempPathFactory) -> Plays:
    """Each run once: with or without gate and masks, of few methods or all."""
    done: dict[tuple[bool, str], Played] = {}

    def run(open_: bool, which: str) -> Played:
        if (open_, which) not in done:
            steps = hospitals.FEW if which == "few" else ()
            done[open_, which] = play(tmp_path_factory.mktemp("canary"), open_, *steps)
        return done[open_, which]

    return run


WHICH = pytest.mark.parametrize("which", ["few", pytest.param("every", marks=pytest.mark.slow)])


@WHICH
def test_no_mark_of_a_patient_is_outside_the_hospitals(plays: Plays, which: str) -> None:
    played = plays(False, which)
    assert not any(played.patients.values()), report(played.patients)


@WHICH
def test_no_hospitals_part_of_a_sum_is_outside_it(plays: Plays, which: str) -> None:
    played = plays(False, which)
    assert len(played.of.marks.values) > (500 if which == "few" else 3000)
    assert not any(played.parts.values()), report(played.parts)


@WHICH
def test_without_gate_and_masks_the_same_search_finds_them(plays: Plays, which: str) -> None:
    played = plays(True, which)
    places = [place for place in FOUND_AT_HUB if place != MEMORY or not played.memory]
    for place in places:
        kinds = {what.split(":")[0] for what in played.patients[place]}
        assert "text" in kinds, (place, kinds)
        assert any(kind.startswith("float64") for kind in kinds), (place, kinds)
    kinds = {what.split(":")[0] for what in played.patients["logs"]}
    assert {"text", "decimal"} <= kinds, "a careless log is found too"
    hub = [MEMORY, "frames inside TLS"] if not played.memory else ["frames inside TLS"]
    for place in hub:
        named = {what.partition(": ")[2].split(" in ")[0] for what in played.parts[place]}
        assert named == {f"part of {name}" for name in hospitals.HOSPITALS}, (place, named)


@WHICH
def test_tls_hides_even_what_is_found_inside_it(plays: Plays, which: str) -> None:
    """The control for the ciphertext: it was captured, in the run in which the frames inside it show everything."""
    for open_ in (False, True):
        played = plays(open_, which)
        assert played.sizes["traffic on loopback"] > played.sizes["frames inside TLS"] / 3
        assert not played.patients["traffic on loopback"]
        assert not played.parts["traffic on loopback"]


@pytest.mark.slow
def test_every_installed_method_sent_something(plays: Plays) -> None:
    absent = {name for name, package in NEEDS.items() if not _installed(package)}
    for open_ in (False, True):
        assert plays(open_, "every").of.ran - {"leaking"} == set(installed_methods()) - set(CANNOT) - absent
    assert set(CANNOT) <= set(installed_methods()), "a reason for a method that is gone"
    assert set(plays(False, "every").steps.values()) == {"finished"}


@pytest.mark.slow
def test_most_of_what_hospitals_put_into_sums_is_searched_for(plays: Plays) -> None:
    """A number that stands alone in its cell is the total, which the hub is meant to have; those stay few."""
    of = plays(False, "every").of
    alone = of.left_out["alone"] + of.left_out["total"]
    assert alone < 0.2 * (len(of.marks.values) + alone)


# ── the search itself ──

VALUE, WHOLE, NEIGHBOUR, TEXT = 135.72910438291745, 3_377_699_720_527_873, 5.318290471239871, "밭머리-9f3a"
MARKS = Marks(
    np.array([VALUE, NEIGHBOUR]), ("a", "b"), np.array([WHOLE]), np.array([[VALUE, NEIGHBOUR]]), (TEXT,), (VALUE,)
)
FORMS: dict[str, bytes] = {
    "float64": np.array([VALUE], "<f8").tobytes(),
    "float64, big-endian": np.array([VALUE], ">f8").tobytes(),
    "float32 beside its neighbour": np.array([VALUE, NEIGHBOUR], "<f4").tobytes(),
    "float32 before its neighbour, big-endian": np.array([NEIGHBOUR, VALUE], ">f4").tobytes(),
    "int64": np.array([WHOLE], "<i8").tobytes(),
    "int64, big-endian": np.array([WHOLE], ">i8").tobytes(),
    "int64 as float64": np.array([WHOLE], "<f8").tobytes(),
    "repr": repr(VALUE).encode(),
    "with an exponent": f"{VALUE:.13e}".encode(),
    "negative": f"-{VALUE!r}".encode(),
    "six digits behind the point": f"x={VALUE:.6f};".encode(),
    "six digits": f"x={VALUE:g},".encode(),
    "a whole number's digits": str(WHOLE).encode(),
    "UTF-8": TEXT.encode(),
    "UTF-16": TEXT.encode("utf-16"),
    "JSON's escapes": TEXT.encode("ascii", "backslashreplace"),
    "zlib": zlib.compress(np.array([VALUE, VALUE], "<f8").tobytes() * 3),
    "base64": base64.b64encode(repr(VALUE).encode() * 2),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("offset", [0, 3])
def test_the_search_finds_a_mark_in_every_form(form: str, offset: int) -> None:
    around = b"\x81\xa3" * 40 + b"\n"
    assert search([around + b" " * offset + FORMS[form] + b"\n" + around], MARKS)


def test_the_search_finds_nothing_where_nothing_is() -> None:
    random = np.random.default_rng(3)
    near = np.nextafter(VALUE, 200)
    other = [
        random.bytes(1 << 20),
        np.array([near]).tobytes(),
        f"{VALUE + 1e-9!r} 135.729 {WHOLE + 1}".encode(),
        b"",
        b"1",
    ]
    assert not search([*other[:2], *other[3:]], MARKS)
    assert set(search([other[2]], MARKS, short=False)) == set()


def test_a_small_or_round_number_is_no_mark() -> None:
    assert not distinctive(np.array([0.0, 1.0, 250.0, 1 / 4, 0.1, 2.5 - 4e-16, np.inf, np.nan, 123456.5])).any()
    assert distinctive(np.array([VALUE, -VALUE, 1 / 3])).all()


@pytest.fixture
def child(tmp_path: Path) -> Iterator[services.Process]:
    code = f"import numpy as np, time\nkept = np.array([{VALUE!r}]) * 1\nprint('ready', flush=True)\ntime.sleep(60)"
    process = services.Process(tmp_path / "log", "-c", code).start()
    services.until(lambda: "ready" in process.said())
    yield process
    process.kill()


def test_a_number_in_another_processs_memory_is_found(child: services.Process) -> None:
    try:
        found = search(memory_of(child.pid), MARKS, unpack=False, short=False)
    except PermissionError as error:
        pytest.skip(f"this computer shows no other process's memory: {error}")
    assert any(what.startswith("float64, little-endian") for what in found)
