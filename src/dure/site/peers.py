"""The keys of other hospitals as this one knows them: `peers.json`, pinned when first seen.

The hub says which key is whose, so the first sight is trust; people compare fingerprints by telephone
(`dure site peers`). A key that changes afterwards is refused and logged until a person removes the pin; and once the
list is closed, so is every hospital that is not on it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager

from dure.federation.secure_sum.keys import Roster
from dure.guard import durable
from dure.guard.certificates import grouped
from dure.site.settings import Site


class Peers:
    """One hospital's pins (`dure.federation.secure_sum.member.Pins`); several workers may look at once."""

    def __init__(self, site: Site) -> None:
        self._site, self._path, self._mark = site, site.folder / "peers.json", site.folder / "peers.closed"

    def hold(self, roster: Roster) -> bool:
        """Whether every key is the pinned one; those of hospitals never seen before are pinned, if all others hold and
        the list is not closed."""
        with self._alone():
            known = self.known()
            changed = [name for name, key in roster.items() if known.get(name, key) != key]
            for name in changed:
                pinned, shown = fingerprint(known[name]), fingerprint(roster[name])
                self._site.audit.append("key changed", hospital=name, pinned=pinned, shown=shown)
            new = {name: bytes(key) for name, key in roster.items() if name not in known}
            seen = {name: fingerprint(key) for name, key in new.items()}
            if new and self.closed:
                self._site.audit.append("hospitals not on the list", hospitals=seen)
            if changed or not new or self.closed:
                return not changed and not new
            written = {name: key.hex() for name, key in (known | new).items()}
            durable.write_whole(self._path, json.dumps(written, ensure_ascii=False, indent=1).encode())
            self._site.audit.append("keys pinned", hospitals=seen)
        return True

    @property
    def closed(self) -> bool:
        """Whether only the hospitals on the list are accepted."""
        return self._mark.exists()

    def close(self, closed: bool) -> None:
        """Accept no new hospital from now on, or again the ones that the hub names."""
        if closed != self.closed:
            durable.write_whole(self._mark, b"") if closed else durable.remove(self._mark)
            self._site.audit.append("list closed" if closed else "list open", hospitals=sorted(self.known()))

    def key(self, hospital: str) -> bytes | None:
        return self.known().get(hospital)

    def known(self) -> dict[str, bytes]:
        """Hospital → Ed25519 public key."""
        if not self._path.exists():
            return {}
        read = json.loads(self._path.read_text(encoding="utf-8"))
        return {str(name): bytes.fromhex(key) for name, key in read.items()}

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with self._path.with_name("peers.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def fingerprint(key: bytes) -> str:
    """A key as people compare it: the first half of its SHA-256 in groups of four digits."""
    return grouped(hashlib.sha256(key).digest())
