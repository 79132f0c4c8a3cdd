"""Whether a folder's audit log is the one that was signed, countersigned and seen by others: `dure audit verify`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from securesystemslib.signer import Key

from dure.errors import FileMissing, LedgerBroken, LogForked
from dure.guard.audit import FILE, AuditLog
from dure.guard.tree_heads import (
    HEADS,
    WITNESSED,
    Seen,
    Signed,
    TreeHead,
    fork,
    read_head,
    read_seen,
    read_signed,
    unchecked,
    unreadable,
)
from dure.language import Words
from dure.study.permit import read_key


@dataclass(frozen=True)
class Keys:
    """What is known of a folder apart from its log: whose it is, its key, and the keys of those it exchanges heads
    with, by name (several where one has joined again)."""

    who: str
    own: Key | None
    others: Mapping[str, Sequence[Key]] = field(default_factory=dict)

    def known(self, name: str, keyid: str) -> Key | None:
        return next((key for key in self.others.get(name, ()) if key.keyid == keyid), None)


@dataclass(frozen=True)
class Checked:
    """A sound log. `countersigned`: witness → newest head of this log that it has seen; `seen`: whose log → newest
    head that was countersigned here; `unproved`: who showed heads again and again without the proof asked for."""

    who: str
    lines: int
    root: str
    heads: int
    countersigned: Mapping[str, TreeHead]
    seen: Mapping[str, TreeHead]
    unproved: Sequence[str] = ()


def check_log(folder: Path, keys: Keys, against: Iterable[Path] = ()) -> Checked:
    """Check every line, every head of the folder's own, every countersignature, and what folders `against` have seen.

    Raises FileMissing, LedgerBroken where a line or signature is not sound, or LogForked where two signed states
    contradict each other.
    """
    if not (folder / FILE).is_file():
        raise FileMissing(path=folder / FILE)
    others = list(against)
    # Heads before the log: a service that is running adds lines first and signs them then.
    own, shown = read_signed(folder), {other: read_seen(other) for other in [folder, *others]}
    log = AuditLog(folder / FILE)
    size, root = log.tree_head()
    heads, countersigned = _own_heads(folder, own, keys, log)
    seen = _seen_heads(folder, shown[folder], keys)
    for other in others:
        _seen_by(other, shown[other], keys, log)
    _same_states(shown)
    unproved = dict.fromkeys(str(entry["of"]) for entry in log.entries() if entry["event"] == "no proof")
    return Checked(keys.who, size, root.hex(), heads, countersigned, seen, tuple(unproved))


def _own_heads(folder: Path, own: list[Signed], keys: Keys, log: AuditLog) -> tuple[int, dict[str, TreeHead]]:
    heads, countersigned = 0, dict[str, TreeHead]()
    for number, signed in enumerate(own, 1):
        if keys.own is None:
            raise FileMissing(path=folder / "key.pem")
        witness = keys.known(signed.by, (signed.key or {}).get("keyid", "")) if signed.by else None
        if signed.by and witness is None:
            raise _not_signed(folder / HEADS, number, signed.by)
        try:
            head = read_head(signed.envelope, keys.own, *([witness] if witness else []))
        except ValueError:
            raise _not_signed(folder / HEADS, number, signed.by or keys.who) from None
        _begins_with(log, head, signed.by or "")
        if signed.by:
            countersigned[signed.by] = head
        else:
            heads += 1
    return heads, countersigned


def _seen_heads(folder: Path, shown: list[Seen], keys: Keys) -> dict[str, TreeHead]:
    """Others' heads in `witnessed.jsonl`; a fork that was recorded there is raised again."""
    seen, last = dict[str, TreeHead](), dict[str, TreeHead]()
    for number, found in enumerate(shown, 1):
        owner = keys.known(found.who, found.key.get("keyid", ""))
        if owner is None or keys.own is None:
            raise _not_signed(folder / WITNESSED, number, found.who)
        try:
            head = read_head(found.envelope, owner, *([] if found.against else [keys.own]))
        except ValueError:
            raise _not_signed(folder / WITNESSED, number, found.who) from None
        before = last.get(owner.keyid)
        if found.against is not None:
            raise fork(found.who, read_head(found.against, owner).size, head.size)
        if before is not None and head.size <= before.size:
            raise unreadable(folder / WITNESSED, number)
        seen[found.who] = last[owner.keyid] = head
    return seen


def _seen_by(other: Path, shown: list[Seen], keys: Keys, log: AuditLog) -> None:
    """What another folder has seen of this log has to be how this log was."""
    for found in shown:
        if keys.own is None or unchecked(found.envelope).key != keys.own.keyid:
            continue
        try:
            head = read_head(found.envelope, keys.own)
        except ValueError:
            continue  # nobody signed it: it says nothing about this log
        _begins_with(log, head, other.name)


def _begins_with(log: AuditLog, head: TreeHead, seen_by: str = "") -> None:
    if head.size <= log.count and log.tree_head(head.size)[1] == head.root_bytes:
        return
    when = f"{head.time:%Y-%m-%d %H:%M:%S} UTC"
    root = f"{head.root[:12]}…"
    en, ko = (f"{root}, seen by {seen_by}", f"{root}, {seen_by}에서 확인") if seen_by else (root, root)
    raise LogForked(
        who=head.who,
        problem=Words(
            f"A head of {head.size} lines ({en}) was signed on {when}, and the log of {log.count} lines does not begin "
            "with them",
            f"줄 {head.size}개의 기록 머리({ko})가 {when}에 서명되었는데, 줄 {log.count}개인 이 기록은 그 줄들로 "
            "시작하지 않습니다",
        ),
    )


def _same_states(shown: Mapping[Path, list[Seen]]) -> None:
    """No log may have two states of one size, whoever signed or saw them; the one shown to whom is named."""
    states: dict[tuple[str, int], tuple[str, Path]] = {}
    for folder, heads in shown.items():
        # What a witness keeps is with its owner's key; that this key signed it is checked before it accuses anybody.
        for found in heads:
            try:
                head = read_head(found.envelope, read_key(found.key))
            except (ValueError, KeyError, TypeError):
                continue
            place = (str(found.key["keyval"]["public"]), head.size)
            root, first = states.setdefault(place, (head.root, folder))
            if root != head.root:
                raise LogForked(
                    who=head.who,
                    problem=Words(
                        f"It was shown in two versions of {head.size} lines: {root[:12]}… to {first.name}, "
                        f"{head.root[:12]}… to {folder.name}",
                        f"줄 {head.size}개인 기록이 두 가지로 제시되었습니다: {first.name}에는 {root[:12]}…, "
                        f"{folder.name}에는 {head.root[:12]}…",
                    ),
                )


def _not_signed(path: Path, number: int, who: str) -> LedgerBroken:
    problem = Words(f"Line {number} does not bear the signature of {who}", f"{number}번째 줄에 {who}의 서명이 없습니다")
    return LedgerBroken(path=path, problem=problem)
