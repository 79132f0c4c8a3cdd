"""That one line stands in a log, shown to somebody who does not hold the log: a proof as plain data, and its check."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from securesystemslib.signer import Key

from dure.errors import InvalidDocument
from dure.guard.audit import FILE, AuditLog
from dure.guard.merkle import included
from dure.guard.tree_heads import TreeHead, read_head, read_signed, unchecked
from dure.language import Words
from dure.study.permit import key_document, read_key


def prove(folder: Path, number: int, owner: Key) -> dict[str, Any]:
    """Line `number` (from 0), its place in the tree, and the newest signed head that covers it.

    Raises InvalidDocument where there is no such line, or no head over it yet; LedgerBroken.
    """
    path = folder / FILE
    log = AuditLog(path)
    heads = [signed.envelope for signed in read_signed(folder) if unchecked(signed.envelope).size > number >= 0]
    if not heads:
        problem = Words("No signed head covers this line", "이 줄을 포함하는 서명된 기록 머리가 없습니다")
        hint = Words(
            f"Lines are numbered from 0; this log has {log.count}. The service signs new ones within seconds.",
            f"줄 번호는 0부터이고 이 기록에는 {log.count}줄이 있습니다. 새 줄은 서비스가 몇 초 안에 서명합니다.",
        )
        raise InvalidDocument(path=path, line=number + 1, field="number", problem=problem, hint=hint)
    size = unchecked(heads[-1]).size
    line = path.read_bytes().split(b"\n")[number].decode()
    nodes = [node.hex() for node in log.inclusion(number, size)]
    return {"line": line, "number": number, "path": nodes, "head": heads[-1], "key": key_document(owner)}


def check_proof(path: Path) -> tuple[dict[str, Any], TreeHead, Key]:
    """The entry, the head that covers it, and the key that signed the head, which a person has to know as the owner's.

    Raises InvalidDocument where the file proves nothing.
    """
    try:
        proof = json.loads(path.read_text(encoding="utf-8"))
        key = read_key(proof["key"])
        head = read_head(proof["head"], key)
        nodes = [bytes.fromhex(node) for node in proof["path"]]
        sound = included(proof["line"].encode(), proof["number"], head.size, nodes, head.root_bytes)
        entry = json.loads(proof["line"])
    except (ValueError, KeyError, TypeError, AttributeError):
        sound = False
    if not sound:
        raise InvalidDocument(
            path=path,
            line=1,
            field="proof",
            problem=Words("It does not show that the line is in the log", "그 줄이 기록에 있음을 보이지 못합니다"),
            hint=Words("Ask for a new one: dure audit prove.", "새 증명을 요청하십시오: dure audit prove"),
        )
    return entry, head, key
