"""Studies that wait for a hospital, and its answer: a signed permit, a request for changes, no, or withdrawal.

The log comes first, then the files, each written whole and synced: a process killed in between, or a loss of power,
leaves a line twice, or one of something that did not come to be, and never a file of which the log does not know.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from dure.errors import FileMissing, LifecycleError, UnknownStudy
from dure.guard import durable
from dure.guard.audit import digest
from dure.language import Words
from dure.site.settings import Site
from dure.study.method import Methods, find_method, source_hash
from dure.study.permit import Grant, Permit, permitted_step, sign
from dure.study.spec import Study, canonical_json

VALID = timedelta(days=365)
AnswerKind = Literal["permitted", "changes_asked", "declined", "withdrawn"]


@dataclass(frozen=True)
class HospitalAnswer:
    """What a hospital said to a study. `envelope` is its signed permit; of a withdrawal, the permit of nothing but
    what still may be done with sums it was part of. `said` is for the researcher; `digest` names this very answer."""

    study: str
    kind: AnswerKind
    envelope: dict[str, Any] | None = None
    said: str = ""

    @property
    def digest(self) -> str:
        return hashlib.sha256(json.dumps([self.kind, self.envelope, self.said]).encode()).hexdigest()


def receive(site: Site, study: Study, proposer: str = "") -> None:
    """Put a study into the inbox; nothing is run by that. Approvals of the version that it replaces end here.

    The study itself is written last: what was cut is done again when the hub carries it again.
    """
    folder = _folder(site, study.hash)
    folder.mkdir(parents=True, exist_ok=True)
    for above in (folder.parent, site.folder):
        durable.sync_folder(above)
    if study.replaces and holds(site, study.replaces):
        before = _folder(site, study.replaces)
        void = (before / "permit.json").exists()
        site.audit.append("replaced", study=study.replaces, by=study.hash, approval_void=void)
        write_whole(before / "replaced.json", {"by": study.hash})
        durable.remove(before / "permit.json")
    site.audit.append("received", study=study.hash, title=study.title.en, proposer=proposer)
    write_whole(folder / "proposer.json", {"name": proposer})
    _write(folder / "study.json", canonical_json(study))


def proposer(site: Site, hash_: str) -> str:
    """Who proposed the study, as the hub said when it came; empty where it did not."""
    path = _folder(site, hash_) / "proposer.json"
    return str(json.loads(path.read_text(encoding="utf-8"))["name"]) if path.exists() else ""


def holds(site: Site, hash_: str) -> bool:
    return bool((_folder(site, hash_) / "study.json").exists())


def find(site: Site, given: str) -> str:
    """The full hash of a study in the inbox, named by its hash or how it begins; raises UnknownStudy."""
    known = [f"sha256:{path.parent.name}" for path in sorted((site.folder / "inbox").glob("*/study.json"))]
    fitting = [hash_ for hash_ in known if hash_.removeprefix("sha256:").startswith(given.removeprefix("sha256:"))]
    if len(fitting) != 1 or len(given) < 4:
        raise UnknownStudy(given, known)
    return fitting[0]


def replaced_by(site: Site, hash_: str) -> str | None:
    """The version that took this one's place."""
    path = _folder(site, hash_) / "replaced.json"
    return str(json.loads(path.read_text(encoding="utf-8"))["by"]) if path.exists() else None


def waiting(site: Site) -> list[Study]:
    """Studies without an answer."""
    return [study for study, kind, _ in decisions(site) if kind == "waiting"]


def permit(
    site: Site,
    hash_: str,
    methods: Methods,
    grants: Iterable[Grant] = (),
    expires: datetime | None = None,
    releases: int = 1,
    boards: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Sign a permit for the study as it lies in the inbox, bound to the methods as they are installed here; without
    `expires` for 365 days.

    Raises LifecycleError where a newer version has taken its place.
    """
    study, given, now = study_of(site, hash_), frozenset(grants), datetime.now(UTC)
    if replaced_by(site, hash_):
        raise LifecycleError(action="permit", state="replaced", role="hospital", open="–")
    document = Permit(
        study=study.hash,
        hospital=site.hospital,
        methods={step.method: source_hash(find_method(step.method, methods)) for step in study.steps},
        steps={step.name: permitted_step(step) for step in study.steps},
        cohort=study.cohort_hash,
        per_hospital="per_hospital" in given,
        difference="difference" in given,
        visible_updates="visible_updates" in given,
        limits=site.file.limits,
        rules=site.limits.model_dump(),
        releases=releases,
        boards=dict(boards or {}),
        issued=now,
        expires=expires or now + VALID,
    )
    about = {"expires": document.expires.isoformat(), "boards": document.boards}
    return keep_permit(site, document, grants=sorted(given), **about)


def keep_permit(site: Site, document: Permit, **about: Any) -> dict[str, Any]:
    """Sign a permit and put it beside its study; `about` is for the log."""
    envelope = sign(document, site.signer())
    site.audit.append("permitted", study=document.study, **about, permit=digest(envelope))
    path = _folder(site, document.study) / "permit.json"
    write_whole(path, envelope)
    durable.remove(path.with_name("answer.json"))
    return envelope


def decline(site: Site, hash_: str, said: str = "") -> None:
    """Say no; where a permit was signed earlier, that is withdrawal."""
    if own_permit(site, hash_) is not None:
        return withdraw(site, hash_, said)
    return _answer(site, hash_, "declined", said)


def ask_changes(site: Site, hash_: str, said: str) -> None:
    """Neither yes nor no: what the hospital wants changed first. Where a permit was signed, that is withdrawal."""
    if own_permit(site, hash_) is not None:
        return withdraw(site, hash_, said)
    return _answer(site, hash_, "changes_asked", said)


def withdraw(site: Site, hash_: str, said: str = "", difference: bool = False, keep_results: bool = False) -> None:
    """Leave a study that was permitted; from now on nothing is answered.

    `difference`: sums without this hospital may be opened although sums with it were; without it, what the study still
    wanted of all hospitals cannot be computed any more. `keep_results`: results that its people are part of, and that
    are not released yet, may be. Released results stay released.
    """
    now = datetime.now(UTC)
    rest = Permit(
        study=hash_,
        hospital=site.hospital,
        methods={},
        difference=difference,
        limits=site.file.limits,
        releases=int(keep_results),
        issued=now,
        expires=now + VALID,
    )
    _answer(site, hash_, "withdrawn", said, sign(rest, site.signer()))


def _answer(site: Site, hash_: str, kind: AnswerKind, said: str, envelope: dict[str, Any] | None = None) -> None:
    folder = _folder(site, hash_)
    study_of(site, hash_)
    site.audit.append(kind, study=hash_)
    ended = _signed(site, hash_)
    answer = {"kind": kind, "said": said, "envelope": envelope, "at": datetime.now(UTC).isoformat()}
    answer["ends"] = digest(ended) if ended else None
    if kind == "withdrawn":  # first, and for good: what boards decided before it opens nothing afterwards
        write_whole(folder / "left.json", {"at": answer["at"]})
    write_whole(folder / "answer.json", answer)
    durable.remove(folder / "permit.json")


def pause(site: Site, paused: bool) -> None:
    """Answer nothing for the moment, or answer again; runs wait and go on."""
    mark = site.folder / "paused"
    if paused != mark.exists():
        site.audit.append("paused" if paused else "resumed")
        durable.write_whole(mark, b"") if paused else durable.remove(mark)


def paused(site: Site) -> bool:
    return (site.folder / "paused").exists()


def answer_of(site: Site, hash_: str) -> HospitalAnswer | None:
    """What this hospital said, if it has."""
    envelope = own_permit(site, hash_)
    if envelope is not None:
        return HospitalAnswer(hash_, "permitted", envelope)
    said = _said(site, hash_)
    return HospitalAnswer(hash_, said["kind"], said["envelope"], said["said"]) if said else None


def answer_mark(site: Site, hash_: str) -> str:
    """Names what the hospital says now, and no other answer, even in the same words; empty where it said nothing."""
    said = own_permit(site, hash_) or _said(site, hash_)
    return digest(said) if said else ""


def left_at(site: Site, hash_: str) -> datetime | None:
    """When the hospital last left the study, whatever it has said since; None where it never did."""
    path = _folder(site, hash_) / "left.json"
    return datetime.fromisoformat(json.loads(path.read_text(encoding="utf-8"))["at"]) if path.exists() else None


def unsent(site: Site) -> list[HospitalAnswer]:
    """Answers that the hub has not taken yet."""
    found = []
    for path in sorted((site.folder / "inbox").glob("*/study.json")):
        given, mark = answer_of(site, f"sha256:{path.parent.name}"), path.parent / "sent.json"
        if given is None:
            continue
        if not mark.exists() or json.loads(mark.read_text(encoding="utf-8"))["digest"] != given.digest:
            found.append(given)
    return found


def sent(site: Site, hash_: str, digest: str, problem: Words | None = None) -> None:
    """The hub has taken the decision, or said why not."""
    said = {"en": problem.en, "ko": problem.ko} if problem else None
    write_whole(_folder(site, hash_) / "sent.json", {"digest": digest, "problem": said})


def decisions(site: Site) -> list[tuple[Study, str, Words | None]]:
    """(study, what was answered, `waiting` or `replaced`; what the hub said against it) for everything in the inbox."""
    found: list[tuple[Study, str, Words | None]] = []
    for path in sorted((site.folder / "inbox").glob("*/study.json")):
        hash_, mark = f"sha256:{path.parent.name}", path.parent / "sent.json"
        given = answer_of(site, hash_)
        kind = "replaced" if replaced_by(site, hash_) else given.kind if given else "waiting"
        problem = json.loads(mark.read_text(encoding="utf-8"))["problem"] if mark.exists() else None
        found.append((_read(path.parent), kind, Words(**problem) if problem else None))
    return found


def own_permit(site: Site, hash_: str) -> dict[str, Any] | None:
    """The permit this hospital signed for the study, if it has and has not said otherwise since.

    A process killed between two files leaves both, the permit and another answer, which says whether it ends this
    permit or an earlier one: dates would not tell where a clock was set back.
    """
    envelope, said = _signed(site, hash_), _said(site, hash_)
    if envelope is None or replaced_by(site, hash_):
        return None
    this = digest(envelope)
    return None if said and said.get("ends", this) == this else envelope


def _signed(site: Site, hash_: str) -> dict[str, Any] | None:
    """The permit as it lies beside the study, whatever was said since."""
    path = _folder(site, hash_) / "permit.json"
    try:
        envelope: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return envelope


def _said(site: Site, hash_: str) -> dict[str, Any] | None:
    """An answer other than a permit, as it lies beside the study."""
    path = _folder(site, hash_) / "answer.json"
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:  # a permit takes its place at any moment
        return None
    return found


def study_of(site: Site, hash_: str) -> Study:
    folder = _folder(site, hash_)
    if not (folder / "study.json").exists():
        raise FileMissing(path=f"inbox/{hash_}")
    return _read(folder)


def write_whole(path: Path, data: Any) -> None:
    """Plain data as JSON."""
    _write(path, json.dumps(data, ensure_ascii=False))


def _write(path: Path, text: str) -> None:
    """Whole or not at all: the service reads while a steward's command writes."""
    durable.write_whole(path, text.encode())


def _read(folder: Any) -> Study:
    return Study.model_validate(json.loads((folder / "study.json").read_text(encoding="utf-8")))


def _folder(site: Site, hash_: str) -> Any:
    return site.folder / "inbox" / hash_.removeprefix("sha256:")
