"""The hub's signed tree heads: shown to every hospital that is connected, and hospitals' heads countersigned."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Executor

from securesystemslib.signer import Key

from dure.errors import DureError
from dure.federation.frames import Unreachable
from dure.guard.journal import Journal
from dure.guard.keys import read_signer
from dure.guard.log_check import Keys
from dure.guard.tree_heads import TOPIC, Heads
from dure.hub.authority import Hub
from dure.hub.store import Member, Store
from dure.study.permit import read_key

Call = Callable[[str, str, bytes], bytes]
"""(identity, topic, body) → the reply's bytes."""


class Witnessing:
    """`courier` makes the calls, so that a slow hospital holds up nobody; each is shown one head at a time."""

    def __init__(self, hub: Hub, store: Store, call: Call, courier: Executor, journal: Journal) -> None:
        self.heads = Heads(hub.folder, store.log, hub.alliance, read_signer(hub.folder / "key.pem"))
        self._call, self._courier, self._journal = call, courier, journal
        self._under_way: set[str] = set()
        self._said = False

    def tick(self, hospitals: Mapping[str, Member]) -> None:
        """Sign what has been added to the log, and show it to the hospitals given (those connected)."""
        try:
            self.heads.sign()
        except DureError as error:  # the log was changed: nothing is signed that this process did not write
            self._journal.say("log broken", level="error", error=error.code(), problem=error.text("en"))
            return
        if self.heads.problem and not self._said:
            self._said = True
            self._journal.say("fork", level="error", problem=self.heads.problem.text("en"))
        for name, member in hospitals.items():
            if name not in self._under_way and self.heads.owes(name):
                self._under_way.add(name)
                self._courier.submit(self._show, name, member)

    def receive(self, member: Member, body: bytes) -> bytes:
        """A member shows its head. Raises LogForked, or MessageRefused."""
        try:
            return self.heads.receive(member.name, read_key(member.key), body)
        except DureError as error:
            self._journal.say(error.code(), level="error", member=member.name, problem=error.text("en"))
            raise

    def close(self) -> None:
        """Sign the last lines."""
        try:
            self.heads.close()
        except DureError as error:
            self._journal.say("log broken", level="error", error=error.code(), problem=error.text("en"))

    def _show(self, name: str, member: Member) -> None:
        try:
            self.heads.show(name, read_key(member.key), lambda body: self._call(member.identity, TOPIC, body))
        except Unreachable:
            return  # it is shown the newest when it is back
        except DureError as error:  # it has seen another log than this one
            self._journal.say("head refused", level="error", member=name, problem=error.text("en"))
        except (ValueError, KeyError, TypeError):
            self._journal.say("head not countersigned", level="error", member=name)
        finally:
            self._under_way.discard(name)


def keys_of(hub: Hub, store: Store) -> Keys:
    """The hub's own key, and every key that a member has had: as the store has it now, and as the log says it was
    admitted with."""
    others: dict[str, list[Key]] = {member.name: [read_key(member.key)] for member in store.members()}
    for entry in store.log.entries():
        if entry["event"] == "admitted":
            others.setdefault(entry["member"], []).append(read_key(entry["key"]))
    return Keys(hub.alliance, read_signer(hub.folder / "key.pem").public_key, others)
