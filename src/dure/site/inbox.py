"""Studies that wait for a hospital, and its answer: a signed permit, or no."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from dure.errors import FileMissing, UnknownStudy
from dure.guard.audit import digest
from dure.site.settings import Site
from dure.study.method import Methods, find_method, source_hash
from dure.study.permit import Grant, Permit, permitted_step, sign
from dure.study.spec import Study, canonical_json

VALID = timedelta(days=365)
ANSWERS = ("permit.json", "declined")


def receive(site: Site, study: Study) -> None:
    """Put a study into the inbox; nothing is run by that."""
    folder = _folder(site, study.hash)
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "study.json", canonical_json(study))
    site.audit.append("received", study=study.hash, title=study.title.en)


def holds(site: Site, hash_: str) -> bool:
    return bool((_folder(site, hash_) / "study.json").exists())


def find(site: Site, given: str) -> str:
    """The full hash of a study in the inbox, named by its hash or how it begins; raises UnknownStudy."""
    known = [f"sha256:{path.parent.name}" for path in sorted((site.folder / "inbox").glob("*/study.json"))]
    fitting = [hash_ for hash_ in known if hash_.removeprefix("sha256:").startswith(given.removeprefix("sha256:"))]
    if len(fitting) != 1 or len(given) < 4:
        raise UnknownStudy(given, known)
    return fitting[0]


def waiting(site: Site) -> list[Study]:
    """Studies without an answer."""
    folders = [path.parent for path in sorted((site.folder / "inbox").glob("*/study.json"))]
    return [_read(folder) for folder in folders if not any((folder / name).exists() for name in ANSWERS)]


def permit(site: Site, hash_: str, methods: Methods, grants: Iterable[Grant] = ()) -> dict[str, Any]:
    """Sign a permit for the study as it lies in the inbox, bound to the methods as they are installed here."""
    study, given, now = study_of(site, hash_), frozenset(grants), datetime.now(UTC)
    document = Permit(
        study=study.hash,
        hospital=site.hospital,
        methods={step.method: source_hash(find_method(step.method, methods)) for step in study.steps},
        per_hospital="per_hospital" in given,
        steps={step.name: permitted_step(step) for step in study.steps},
        cohort=study.cohort_hash,
        difference="difference" in given,
        visible_updates="visible_updates" in given,
        limits=site.file.limits,
        rules=site.limits.model_dump(),
        issued=now,
        expires=now + VALID,
    )
    envelope = sign(document, site.signer())
    path = _folder(site, hash_) / "permit.json"
    _write(path, json.dumps(envelope))
    path.with_name("declined").unlink(missing_ok=True)
    about: dict[str, Any] = {
        "permit": digest(envelope),
        "grants": sorted(given),
        "expires": document.expires.isoformat(),
    }
    site.audit.append("permitted", study=hash_, **about)
    return envelope


def decline(site: Site, hash_: str) -> None:
    """Say no; a permit signed earlier no longer holds here."""
    folder = _folder(site, hash_)
    study_of(site, hash_)
    (folder / "declined").touch()
    (folder / "permit.json").unlink(missing_ok=True)
    site.audit.append("declined", study=hash_)


def pause(site: Site, paused: bool) -> None:
    """Answer nothing for the moment, or answer again; runs wait and go on."""
    mark = site.folder / "paused"
    if paused != mark.exists():
        mark.touch() if paused else mark.unlink()
        site.audit.append("paused" if paused else "resumed")


def paused(site: Site) -> bool:
    return (site.folder / "paused").exists()


def unsent(site: Site) -> list[tuple[str, dict[str, Any] | None, str]]:
    """Decisions the hub has not taken yet: (study, signed permit or None for no, digest of the decision)."""
    found = []
    for folder in sorted(path.parent for path in (site.folder / "inbox").glob("*/study.json")):
        if not any((folder / name).exists() for name in ANSWERS):
            continue
        hash_ = f"sha256:{folder.name}"
        envelope = own_permit(site, hash_)
        digest = hashlib.sha256(json.dumps(envelope).encode()).hexdigest()
        mark = folder / "sent.json"
        if not mark.exists() or json.loads(mark.read_text(encoding="utf-8"))["digest"] != digest:
            found.append((hash_, envelope, digest))
    return found


def sent(site: Site, hash_: str, digest: str, problem: str = "") -> None:
    """The hub has taken the decision, or said why not."""
    _write(_folder(site, hash_) / "sent.json", json.dumps({"digest": digest, "problem": problem}))


def decisions(site: Site) -> list[tuple[Study, str, str]]:
    """(study, `waiting`, `permitted` or `declined`, what the hub said against it) for everything in the inbox."""
    found = []
    for path in sorted((site.folder / "inbox").glob("*/study.json")):
        folder, mark = path.parent, path.parent / "sent.json"
        said = next(
            (word for name, word in zip(ANSWERS, ("permitted", "declined")) if (folder / name).exists()), "waiting"
        )
        problem = json.loads(mark.read_text(encoding="utf-8"))["problem"] if mark.exists() else ""
        found.append((_read(folder), said, problem))
    return found


def own_permit(site: Site, hash_: str) -> dict[str, Any] | None:
    """The permit this hospital signed for the study, if it has."""
    path = _folder(site, hash_) / "permit.json"
    if not path.exists():
        return None
    envelope: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return envelope


def study_of(site: Site, hash_: str) -> Study:
    folder = _folder(site, hash_)
    if not (folder / "study.json").exists():
        raise FileMissing(path=f"inbox/{hash_}")
    return _read(folder)


def _write(path: Path, text: str) -> None:
    """Whole or not at all: the service reads while a steward's command writes."""
    beside = path.with_name(path.name + ".new")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)


def _read(folder: Any) -> Study:
    return Study.model_validate(json.loads((folder / "study.json").read_text(encoding="utf-8")))


def _folder(site: Site, hash_: str) -> Any:
    return site.folder / "inbox" / hash_.removeprefix("sha256:")
