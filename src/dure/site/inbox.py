"""Studies that wait for a hospital, and its answer: a signed permit, or no."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from dure.errors import FileMissing
from dure.site.settings import Site
from dure.study.method import Methods, find_method, source_hash
from dure.study.permit import Grant, Permit, sign
from dure.study.spec import Study, canonical_json

VALID = timedelta(days=365)
ANSWERS = ("permit.json", "declined")


def receive(site: Site, study: Study) -> None:
    """Put a study into the inbox; nothing is run by that."""
    folder = _folder(site, study.hash)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.json").write_text(canonical_json(study), encoding="utf-8")
    site.audit.append("received", study=study.hash, title=study.title.en)


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
        difference="difference" in given,
        limits=site.file.limits,
        issued=now,
        expires=now + VALID,
    )
    envelope = sign(document, site.signer())
    path = _folder(site, hash_) / "permit.json"
    path.write_text(json.dumps(envelope), encoding="utf-8")
    path.with_name("declined").unlink(missing_ok=True)
    site.audit.append("permitted", study=hash_, grants=sorted(given), expires=document.expires.isoformat())
    return envelope


def decline(site: Site, hash_: str) -> None:
    """Say no; a permit signed earlier no longer holds here."""
    folder = _folder(site, hash_)
    (folder / "permit.json").unlink(missing_ok=True)
    (folder / "declined").touch()
    site.audit.append("declined", study=hash_)


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


def _read(folder: Any) -> Study:
    return Study.model_validate(json.loads((folder / "study.json").read_text(encoding="utf-8")))


def _folder(site: Site, hash_: str) -> Any:
    return site.folder / "inbox" / hash_.removeprefix("sha256:")
