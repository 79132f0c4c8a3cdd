"""Signed tree heads: what a log was at a moment, signed by its owner and countersigned by those who saw it grow.

A head says whose log it is, how many lines it has and the Merkle root over them. A witness countersigns a head only
if a proof shows that the log still begins with what the witness saw before. So nobody can rewrite a log, or show two
versions of it, without a signature that says otherwise. DSSE envelopes as for permits; docs/audit.md, *Heads*.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field, ValidationError
from securesystemslib.dsse import Envelope
from securesystemslib.signer import Key, Signer

from dure.errors import LedgerBroken, LogForked, MessageRefused
from dure.guard.audit import AuditLog
from dure.guard.merkle import consistent
from dure.language import Words
from dure.study.document import Strict
from dure.study.packing import pack, unpack
from dure.study.permit import key_document
from dure.study.signed import Unsigned, seal, unseal

PAYLOAD_TYPE = "application/vnd.dure.tree-head+json"
HEADS, WITNESSED = "heads.jsonl", "witnessed.jsonl"
TOPIC = "head"
"""The topic of the calls, in both directions, with which heads are shown."""
EVERY = 5.0
"""Seconds between heads, at least, while the log grows."""
REFUSED = 60.0
"""Seconds after which a witness that has found a fork is shown a head again."""
UNPROVED = 3
"""Heads without the proof that was asked for, one after the other, after which the witness's log says so."""


class TreeHead(Strict):
    """`who` and `key` (its identifier): whose log; `size`: lines; `root`: of the tree over them, in hexadecimal."""

    who: str
    key: str
    size: int = Field(ge=0)
    root: str = Field(pattern="^[0-9a-f]{64}$")
    time: datetime

    @property
    def root_bytes(self) -> bytes:
        return bytes.fromhex(self.root)


def sign_head(who: str, size: int, root: bytes, signer: Signer) -> dict[str, Any]:
    """The signed envelope as plain data."""
    head = TreeHead(who=who, key=signer.public_key.keyid, size=size, root=root.hex(), time=datetime.now(UTC))
    return seal(head, PAYLOAD_TYPE, signer)


def read_head(envelope: Any, owner: Key, *witnesses: Key) -> TreeHead:
    """The head inside an envelope truly signed by its owner and by all `witnesses`; raises ValueError."""
    try:
        head = unseal(envelope, PAYLOAD_TYPE, TreeHead, owner)
        for key in witnesses:
            unseal(envelope, PAYLOAD_TYPE, TreeHead, key)
    except (Unsigned, ValidationError):
        raise ValueError("it is not signed by whom it should be") from None
    if head.key != owner.keyid:
        raise ValueError("it speaks of another's log")
    return head


def countersign(envelope: dict[str, Any], signer: Signer) -> dict[str, Any]:
    """The same head with one more signature: its holder has seen the log grow to this."""
    opened = Envelope.from_dict(json.loads(json.dumps(envelope)))
    opened.sign(signer)
    data: dict[str, Any] = opened.to_dict()
    return data


@dataclass(frozen=True)
class Seen:
    """One line of `witnessed.jsonl`: another's head that was countersigned here, or evidence of a fork: `against` is
    then the earlier head that `envelope` contradicts. `time`: when it was written here."""

    who: str
    key: dict[str, Any]
    envelope: dict[str, Any]
    time: str
    against: dict[str, Any] | None = None


@dataclass(frozen=True)
class Signed:
    """One line of `heads.jsonl`: a head of the folder's own log; with `by` and `key`, as that witness countersigned."""

    envelope: dict[str, Any]
    by: str | None = None
    key: dict[str, Any] | None = None


Line = TypeVar("Line", Seen, Signed)


class Heads:
    """The heads of one folder's log, and those of others' logs that were seen here. For one process at a time."""

    def __init__(self, folder: Path, log: AuditLog, who: str, signer: Signer) -> None:
        self.log, self.who, self._signer = log, who, signer
        self._own, self._seen = folder / HEADS, folder / WITNESSED
        self._lock = threading.Lock()
        self.problem: LogForked | None = None
        """What is wrong with this folder's own log, found by its own heads."""
        self._last: dict[str, tuple[TreeHead, dict[str, Any]]] = {}
        """Key of another's log → the newest head of it that was countersigned here."""
        self._forked: set[str] = set()
        self._unproved = Counter[str]()
        """Key of another's log → how many heads of it came without a proof since the last that brought one."""
        self._since: dict[str, int] = {}
        """Witness → size of the newest head that it is known to have seen."""
        self._shown: dict[str, float] = {}
        for seen in read_seen(folder):
            if seen.against is not None:
                self._forked.add(seen.key["keyid"])
            else:
                self._last[seen.key["keyid"]] = (unchecked(seen.envelope), seen.envelope)
        mine = [signed.envelope for signed in read_signed(folder) if signed.by is None]
        self._newest: dict[str, Any] | None = mine[-1] if mine else None
        self._before = unchecked(mine[-1]) if mine else None
        self._size, self._next = self._before.size if self._before else -1, 0.0

    # ── our own log ──

    def sign(self) -> None:
        """Sign the log as it is if it has grown, at most every few seconds. Raises LedgerBroken.

        A log that is not the one of an earlier head gets a line that says so, and is signed all the same: each
        signature then speaks against it.
        """
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + EVERY
        size, root = self.log.tree_head()
        if self._before is not None:
            before, self._before = self._before, None
            if before.size > size or self.log.tree_head(before.size)[1] != before.root_bytes:
                self.problem = fork(self.who, before.size, size)
                self.log.append("fork", of=self.who, key=before.key, seen={"size": before.size, "root": before.root})
                size, root = self.log.tree_head()
                self._size = -1
        if size == self._size:
            return
        self.log.sync()  # others keep the head: no loss of power may take a line from under it
        envelope = sign_head(self.who, size, root, self._signer)
        append_line(self._own, Signed(envelope).__dict__)
        with self._lock:
            self._newest, self._size = envelope, size

    def close(self) -> None:
        """A last head, so that nobody can change the end of a log that rests."""
        self._next = 0.0
        self.sign()

    def owes(self, witness: str) -> bool:
        """Whether there is a head that the witness has not seen, and was not shown a moment ago."""
        rested = time.monotonic() - self._shown.get(witness, -EVERY) >= EVERY
        return self._newest is not None and self._since.get(witness) != self._size and rested

    def show(self, witness: str, key: Key, call: Callable[[bytes], bytes]) -> bool:
        """Have the newest head countersigned by a call to the witness; whether it was. Raises what `call` raises (a
        LogForked that the witness found, for instance), or ValueError where its reply is not a countersignature."""
        self._shown[witness] = time.monotonic()
        try:
            return any(self.taken(witness, key, unpack(call(pack(self.offer(witness))))) for _ in range(2))
        except LogForked:  # nothing will change soon; it is said again from time to time
            self._shown[witness] += REFUSED - EVERY
            raise

    def offer(self, witness: str) -> dict[str, Any]:
        """The newest head with the proof that the log begins with what the witness saw last, as far as is known."""
        with self._lock:
            envelope, size, since = self._newest, self._size, self._since.get(witness, 0)
        return {"head": envelope, "since": since, "proof": self.log.consistency(since, size) if since <= size else []}

    def taken(self, witness: str, key: Key, reply: Mapping[str, Any]) -> bool:
        """Keep the countersignature that came back. False where the witness asks for a proof from another state."""
        if "countersigned" not in reply:
            self._since[witness] = int(reply["last"])
            return False
        head = read_head(reply["countersigned"], self._signer.public_key, key)
        append_line(self._own, Signed(reply["countersigned"], witness, key_document(key)).__dict__)
        self._since[witness] = head.size
        return True

    # ── others' logs ──

    def receive(self, who: str, key: Key, body: bytes) -> bytes:
        """The answer to a call in which `who` shows its head. Raises LogForked, or MessageRefused."""
        try:
            return pack(self.witness(who, key, unpack(body)))
        except (ValueError, KeyError, TypeError):
            raise MessageRefused(
                problem=Words("It is not a tree head signed by who sent it", "보낸 쪽이 서명한 기록 머리가 아닙니다"),
                hint=Words("Update dure on the older side.", "더 오래된 쪽의 dure를 갱신하십시오."),
            ) from None

    def witness(self, who: str, key: Key, offer: Mapping[str, Any]) -> dict[str, Any]:
        """Countersign another's head, or say from which size a proof is needed.

        Raises LogForked where it contradicts what was seen before; the evidence stays in `witnessed.jsonl`, and the
        log of this folder says so, as it does where heads keep coming without the proof that was asked for. Raises
        ValueError where the head is not signed by `key`.
        """
        head = read_head(offer["head"], key)
        with self._lock:
            last, envelope = self._last.get(key.keyid, (None, None))
            if last is not None:
                late = head.size < last.size and head.time <= last.time
                if late or (head.size > last.size and offer["since"] != last.size):
                    self._note_unproved(who, last, head, offer["head"])
                    return {"last": last.size}
                path = read_proof(offer["proof"]) if head.size > last.size else []
                if not consistent(last.size, head.size, last.root_bytes, head.root_bytes, path):
                    self._evidence(Seen(who, key_document(key), dict(offer["head"]), _now(), envelope), last, head)
                    raise fork(who, last.size, head.size)
            signed = countersign(offer["head"], self._signer)
            if last is None or head.size > last.size:
                del self._unproved[key.keyid]
                append_line(self._seen, Seen(who, key_document(key), signed, _now()).__dict__)
                self._last[key.keyid] = (head, signed)
        return {"countersigned": signed}

    def _evidence(self, seen: Seen, last: TreeHead, head: TreeHead) -> None:
        """Both heads, once: a forked log goes on growing, and would fill ours."""
        if head.key in self._forked:
            return
        self._forked.add(head.key)
        append_line(self._seen, seen.__dict__)
        states: dict[str, Any] = {
            "seen": {"size": last.size, "root": last.root},
            "shown": {"size": head.size, "root": head.root},
        }
        self.log.append("fork", of=seen.who, key=head.key, **states)

    def _note_unproved(self, who: str, last: TreeHead, head: TreeHead, envelope: dict[str, Any]) -> None:
        """One line with the head, for as long as no proof comes: a log that was forked may never bring one."""
        self._unproved[head.key] += 1
        if self._unproved[head.key] == UNPROVED:
            self.log.append(
                "no proof", of=who, key=head.key, seen={"size": last.size, "root": last.root}, head=envelope
            )


def fork(who: str, before: int, after: int) -> LogForked:
    """The log that had `before` lines now shows `after`, and does not begin with them."""
    return LogForked(
        who=who,
        problem=Words(
            f"Of {before} lines a signed head was seen, and the log of {after} lines does not begin with them",
            f"줄 {before}개에 대한 서명이 확인되었는데, 줄 {after}개인 지금의 기록은 그 줄들로 시작하지 않습니다",
        ),
    )


def read_proof(nodes: Any) -> list[bytes]:
    """A proof of consistency as it came; raises ValueError unless it is a list of at most 64 hashes."""
    if not isinstance(nodes, list) or len(nodes) > 64 or any(not isinstance(n, bytes) or len(n) != 32 for n in nodes):
        raise ValueError("not a proof")
    return nodes


def append_line(path: Path, data: Mapping[str, Any]) -> None:
    """Add one line, synced; what a crash cut off before is taken away first."""
    with path.open("a+b") as file:
        end = file.seek(0, os.SEEK_END)
        if end:
            file.seek(end - 1)
            if file.read(1) != b"\n":
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)
        file.write(json.dumps(data, ensure_ascii=False, sort_keys=True).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def read_signed(folder: Path) -> list[Signed]:
    """`heads.jsonl` of a folder, in order; raises LedgerBroken."""
    return [_fields(Signed, folder / HEADS, number, raw) for number, raw in _lines(folder / HEADS)]


def read_seen(folder: Path) -> list[Seen]:
    """`witnessed.jsonl` of a folder, in order; raises LedgerBroken."""
    return [_fields(Seen, folder / WITNESSED, number, raw) for number, raw in _lines(folder / WITNESSED)]


def unreadable(path: Path, number: int) -> LedgerBroken:
    problem = Words(f"Line {number} cannot be read", f"{number}번째 줄을 읽을 수 없습니다")
    return LedgerBroken(path=path, problem=problem)


def unchecked(envelope: dict[str, Any]) -> TreeHead:
    """What a head says, without asking who signed it: for one from a file of this folder's own. Raises ValueError."""
    return unseal(envelope, PAYLOAD_TYPE, TreeHead, None)


def _lines(path: Path) -> Iterator[tuple[int, Any]]:
    """Number and content of the whole lines of a JSON-lines file."""
    data = path.read_bytes() if path.is_file() else b""
    for number, line in enumerate(data[: data.rfind(b"\n") + 1].split(b"\n")[:-1], 1):
        try:
            yield number, json.loads(line)
        except ValueError:
            raise unreadable(path, number) from None


def _fields(kind: type[Line], path: Path, number: int, raw: Any) -> Line:
    try:
        found = kind(**raw)
        unchecked(found.envelope)
    except (ValueError, TypeError, KeyError):
        raise unreadable(path, number) from None
    return found


def _now() -> str:
    return datetime.now(UTC).isoformat()
