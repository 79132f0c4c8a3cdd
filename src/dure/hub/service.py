"""The hub's service: one open port for members, a thread for every study that runs, and its truth in the store."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dure.errors import DureError
from dure.federation.calls import Calls
from dure.federation.flare_wire import Credentials, FlareWire
from dure.federation.frames import FORM, Unreachable
from dure.federation.health import Health, check_free, only_one
from dure.federation.invitation import INVITED
from dure.federation.membership import HUB
from dure.federation.on_behalf import opened
from dure.guard.accounts import Accounts
from dure.guard.journal import Journal
from dure.guard.permissions import Actor, check
from dure.guard.tree_heads import TOPIC
from dure.hub import desk, reception, releases, studies
from dure.hub.authority import Authority, read_hub, renew_own
from dure.hub.courier import Courier
from dure.hub.store import Member
from dure.hub.study_run import StudyRun
from dure.hub.witnessing import Witnessing
from dure.study.method import Methods, installed_methods
from dure.study.packing import pack, unpack
from dure.study.permit import read_key

VERSION = version("dure")
TICK = 1.0
FOLLOW = 4.0
"""Seconds for which a question for new events waits for one."""
AGAIN = 20.0
"""Seconds after which a waiting run looks again, even if nobody came back."""
LARGEST_SUBMISSION = 16 << 20
"""Bytes of the largest call a member may make; answers to the hub's own questions may be larger."""
OF_A_STUDY = (
    "status",
    "events",
    "cancel",
    "fetch",
    "document",
    "proceed",
    "release_ask",
    "release_decide",
    "decide_shared",
)
"""Topics about one study, which the body names."""
REVIEWS = ("submitted", "in_review", "changes_asked")
RUNS = ("permitted", "running", "waiting")


class HubService:
    """The alliance's long-lived process. `run` returns after `stop`; a killed one goes on where its ledger ends."""

    def __init__(
        self,
        folder: Path,
        health: int | None = None,
        journal: Journal | None = None,
        patience: float = 30.0,
        methods: Methods | None = None,
    ) -> None:
        self.hub = read_hub(folder)
        renew_own(self.hub)
        self.store = self.hub.open_store()
        self.log = self.store.log
        """The hub's audit log: for what people and members do here that the store does not write down itself."""
        self.authority = Authority(self.hub, self.store)
        self.accounts = Accounts(folder)
        self.methods = methods if methods is not None else installed_methods()
        self.journal = journal or Journal("hub")
        self.patience = patience
        self._members: dict[str, Member] = {}
        self._serials: dict[str, bool] = {}
        self._refresh()
        credentials = Credentials(folder / "authority.pem", folder / "tls.pem", folder / "tls.pem")
        self._wire = FlareWire(HUB, credentials, self.hub.scheme)  # type: ignore[arg-type]
        self.calls = Calls(self._wire, self.hub.keys(self._key_of), self._handle, takes=LARGEST_SUBMISSION)
        self.calls.answering.on_session = self._came
        self._running: dict[str, StudyRun] = {}
        self._paused: dict[str, bool] = {}
        self._following: set[str] = set()
        self._news, self._stop = threading.Condition(), threading.Event()
        self._courier = ThreadPoolExecutor(8, thread_name_prefix="courier")
        self._inboxes = Courier(self, self._courier)
        self.witnessing = Witnessing(self.hub, self.store, self.ask_site, self._courier, self.journal)
        self._health = Health(health, self._report) if health is not None else None

    def run(self) -> None:
        with only_one(self.hub.folder):
            self._serve()

    def _serve(self) -> None:
        check_free(self.hub.listen, self.hub.port)
        self._wire.listen(self.hub.listen, self.hub.port, self._admits)
        self.journal.say("started", version=VERSION, listen=f"{self.hub.scheme}://{self.hub.listen}:{self.hub.port}")
        try:
            while not self._stop.is_set():
                try:
                    self._tick()
                except Exception as error:  # a locked or full store: members stay connected, the next round tries again
                    self.journal.say("round failed", level="error", why=type(error).__name__)
                self._stop.wait(TICK)
        finally:
            self._end()

    def stop(self) -> None:
        """Ask `run` to return: rounds under way are given up, and asked again after the next start."""
        self._stop.set()

    # ── who may speak ──

    def _refresh(self) -> None:
        """Members and certificates as they are now; commands of the office write to the same store."""
        members = {member.identity: member for member in self.store.members()}
        gone = [name for name, member in self._members.items() if not member.revoked and members[name].revoked]
        self._members, self._serials = members, self.store.serials()
        for identity in gone:
            self.calls.forget(identity)
            self.journal.say("revoked", level="warning", member=members[identity].name)
            self._wake_all()

    def _admits(self, serial: str) -> bool:
        holds = self._serials.get(serial)
        if holds is None:
            self._serials = self.store.serials()
            holds = self._serials.get(serial, False)
        if not holds:
            self.journal.say("certificate refused", level="warning", serial=serial)
        return holds

    def _key_of(self, peer: str) -> bytes | None:
        """The member's public key; None for those who are invited. Raises NotAMember for anybody else."""
        if peer.startswith(INVITED):
            return None
        member = self._member(peer)
        if member is None:
            raise desk.not_a_member(peer)
        return bytes.fromhex(str(read_key(member.key).keyval["public"]))

    def _member(self, peer: str) -> Member | None:
        if peer not in self._members and not peer.startswith(INVITED):
            self._refresh()
        member = self._members.get(peer)
        return member if member and not member.revoked else None

    def _came(self, peer: str) -> None:
        member = self._member(peer)
        if member:
            self.journal.say("connected", member=member.name)
        if member and member.role == "hospital":
            self._wake_all()

    # ── what members ask ──

    def _handle(self, peer: str, topic: str, body: bytes) -> bytes:
        if topic == "enrol" and peer.startswith(INVITED):
            asked = unpack(body)
            name, certificate = self.authority.enrol(peer, asked["request"], asked["key"])
            self._refresh()
            self.journal.say("enrolled", member=name)
            return pack({"certificate": certificate})
        member = self._member(peer)
        if member is None:
            raise desk.not_a_member(peer)
        person = member.name
        try:
            answered = self._machine(member, topic, body)
            if answered is None and member.role == "hospital":
                answered = self._hospital(member, topic, body)
            if answered is None:
                token, body = opened(body)
                answered = reception.account(self.accounts, member, topic, token, body)
            if answered is None and topic in reception.TOPICS:
                actor = reception.who_asks(self.accounts, member, token)
                person = actor.name
                check(actor, reception.TOPICS[topic], actor.organisation)  # of its own studies, if of any
                answered = self._everybody(actor, topic, body)
        except (DureError, ValueError, TypeError, KeyError, AttributeError) as found:
            error = found if isinstance(found, DureError) else FORM  # a body that cannot be read
            details = {"topic": topic, "error": error.code(), "person": person}
            self.journal.say("refused", level="warning", member=member.name, **details)
            self.log.append("refused", member=member.name, person=person, topic=topic, error=error.code())
            raise error from None
        if answered is None:
            raise FORM
        return answered

    def _machine(self, member: Member, topic: str, body: bytes) -> bytes | None:
        """What a member's own program says, whoever uses it."""
        if topic == "join":
            told = unpack(body)
            self._paused[member.name] = bool(told.get("paused"))
            if member.role == "hospital":
                self._wake_all()
            return pack({"alliance": self.hub.alliance, "software": VERSION})
        if topic == "renew":
            certificate = self.authority.renew(member, unpack(body)["request"])
            self._refresh()
            self.journal.say("certificate renewed", member=member.name)
            return pack({"certificate": certificate})
        return None

    def _everybody(self, actor: Actor, topic: str, body: bytes) -> bytes | None:
        """What people ask, each after the permissions table has said yes."""
        if topic in ("submit", "revise", "ask_open"):
            hash_, new = desk.submit(self.store, self.methods, actor, body)
            if new:
                self.spread(hash_, "submitted", by=actor.organisation)
            self._deliver()
            return hash_.encode()
        if topic == "studies":
            return pack(desk.statuses(self.store, actor, self._connected(), self._paused))
        if topic == "release_queue":
            return pack([item.told() for item in releases.queue(self.store, self.methods, actor)])
        if topic not in OF_A_STUDY:
            return None
        asked = unpack(body)
        hash_ = desk.find_for(self.store, asked["study"], actor, reception.TOPICS[topic])
        if topic == "status":
            return pack(desk.status_of(self.store, hash_, self._connected(), self._paused))
        if topic == "events":
            return pack(self._events(actor.organisation, hash_, int(asked["after"])))
        if topic == "cancel":
            desk.withdraw(self.store, hash_, actor)
            self.tell(hash_, "cancelled", by=actor.organisation)
            self._abandon(hash_)
            return b""
        if topic in ("document", "proceed", "release_ask", "release_decide", "decide_shared"):
            answered = desk.decided(self.store, self.methods, topic, hash_, actor, asked)
            self._deliver()
            return pack(answered)
        released = desk.released(self.store, hash_, self.methods)
        self.log.append("fetched", study=hash_, by=actor.name, organisation=actor.organisation)
        return pack(released)

    def _hospital(self, member: Member, topic: str, body: bytes) -> bytes | None:
        if topic == "permit":
            said = unpack(body)
            studies.receive_answer(self.store, said["study"], member.name, said["kind"], said["envelope"], said["said"])
            self.spread(said["study"], said["kind"], hospital=member.name)  # a board's words are in the record only
            self._advance(said["study"])
            return b""
        if topic == TOPIC:
            return self.witnessing.receive(member, body)
        if topic == "pause":
            self._paused[member.name] = bool(unpack(body))
            self.journal.say("paused" if self._paused[member.name] else "resumed", member=member.name)
            self._wake_all()
            return b""
        return None

    def _events(self, member: str, hash_: str, after: int) -> list[dict[str, Any]]:
        """New events, waiting a little for one; of a member's questions only one waits, each holds a thread."""
        with self._news:
            waits = member not in self._following
            self._following.add(member)
            deadline = time.monotonic() + (FOLLOW if waits else 0.0)
            try:
                while not (found := self.store.events(hash_, after)) and not self._stop.is_set():
                    left = deadline - time.monotonic()
                    if left <= 0:
                        break
                    self._news.wait(left)
            finally:
                if waits:
                    self._following.discard(member)
        return found

    # ── studies on their way ──

    def tell(self, hash_: str, event: str, **details: Any) -> None:
        """Something happened in a study: to its record, to the log, and to those who follow it."""
        self.store.put_event(hash_, event, details)
        self.spread(hash_, event, **details)

    def spread(self, hash_: str, event: str, **details: Any) -> None:
        """What is in the study's record: to the log, and to those who follow it."""
        plain: dict[str, Any] = {name: value for name, value in details.items() if isinstance(value, str | int | float)}
        self.journal.say(event, study=hash_, **plain)
        with self._news:
            self._news.notify_all()

    def _tick(self) -> None:
        self._refresh()
        self._deliver()
        for hash_, _, state in self.store.studies():
            try:
                if state in REVIEWS or state in RUNS:
                    self._advance(hash_)
                elif hash_ in self._running:
                    self._abandon(hash_)
            except Exception as error:  # a document of another version, say: the other studies go on
                self.journal.say("study failed", level="error", study=hash_, why=type(error).__name__)
        members = [member for member in self._members.values() if member.role == "hospital" and not member.revoked]
        self.witnessing.tick({member.name: member for member in members if self.calls.known(member.identity)})

    def _advance(self, hash_: str) -> None:
        """Close the review if it is over; start the run if it may, or wake it."""
        if studies.settle(self.store, hash_) not in RUNS or self._stop.is_set():
            return
        with self._news:
            run = self._running.get(hash_)
            if run is None or run.over:
                run = StudyRun(self, hash_)
                run.start()
                self._running[hash_] = run
        run.look()

    def _deliver(self) -> None:
        """Studies and boards' decisions into the inboxes of hospitals that are connected and do not hold them yet."""
        connected = self._connected()
        for hash_, document, state in self.store.studies():
            try:
                if state in REVIEWS or state in RUNS:
                    self._inboxes.look(hash_, document, connected)
            except Exception as error:  # a stored document that cannot be read: the other studies go on
                self.journal.say("not delivered", level="error", study=hash_, why=type(error).__name__)

    def ask_site(self, identity: str, topic: str, body: bytes) -> bytes:
        """A call that is done at once or not at all: couriers are few, and none waits for `later` after `later`."""
        return self.calls.call(identity, topic, body, self.patience, 2 * self.patience, abandoned=self._stop.is_set)

    def _abandon(self, hash_: str) -> None:
        run = self._running.pop(hash_, None)
        if run:
            run.abandon.set()
            run.wake.set()
        for identity in self.identities().values():
            if self.calls.known(identity):
                self._courier.submit(self._stop_at, identity, hash_)

    def _stop_at(self, identity: str, hash_: str) -> None:
        try:
            self.ask_site(identity, "stop", hash_.encode())
        except (Unreachable, DureError):
            return  # it is not working on it, or will refuse the next question

    def _wake_all(self) -> None:
        for run in list(getattr(self, "_running", {}).values()):
            run.look(now=True)

    def identities(self) -> dict[str, str]:
        return {member.name: member.identity for member in self._members.values() if not member.revoked}

    def _connected(self) -> dict[str, bool]:
        return {name: self.calls.known(identity) for name, identity in self.identities().items()}

    # ── how it is ──

    def _report(self) -> tuple[bool, Mapping[str, Any]]:
        hospitals = set(self.store.hospitals())
        connected = [name for name, up in self._connected().items() if up and name in hospitals]
        running = [hash_[7:19] for hash_, run in list(self._running.items()) if not run.over]
        return self._open_to_members(), {
            "alliance": self.hub.alliance,
            "version": VERSION,
            "hospitals": len(hospitals),
            "connected": sorted(connected),
            "paused": sorted(name for name, paused in self._paused.items() if paused and name in connected),
            "studies running": running,
        }

    def _open_to_members(self) -> bool:
        host = "127.0.0.1" if self.hub.listen in ("0.0.0.0", "") else self.hub.listen
        try:
            socket.create_connection((host, self.hub.port), timeout=2).close()
        except OSError:
            return False
        return True

    def _end(self) -> None:
        runs = list(self._running.values())
        for run in runs:
            run.abandon.set()
            run.wake.set()
        self._wire.stop()
        for run in runs:
            run.join(10)
        self._courier.shutdown(wait=False, cancel_futures=True)
        self.witnessing.close()
        if self._health:
            self._health.close()
        self.journal.say("stopped")
        self.store.close()
