"""A hospital's service: connected outwards to the hub, it takes studies into the inbox, hands in what the steward
decided, and lets workers answer the questions of permitted runs. It listens to nobody."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dure.errors import (
    DureError,
    FileMissing,
    HubUnreachable,
    LedgerBroken,
    LifecycleError,
    LogForked,
    MessageRefused,
    PermitError,
    SitePaused,
    UnknownHospital,
    UnknownStudy,
)
from dure.federation.flare_engine import ASK
from dure.federation.frames import FORM
from dure.federation.health import Health, only_one
from dure.federation.membership import HUB, Line
from dure.federation.messages import Answer, Ask, error_data
from dure.federation.secure_sum.exchange import Exchange, read_question
from dure.guard import certificates
from dure.guard.journal import Journal
from dure.guard.tree_heads import TOPIC, Heads
from dure.language import Words, plain
from dure.site import inbox, open_feasibility, reviews
from dure.site.settings import Site
from dure.site.worker import Worker, preload, prepare
from dure.study.method import installed_methods
from dure.study.packing import pack, unpack
from dure.study.signed import key_of
from dure.study.spec import Study

VERSION = version("dure")
TICK = 0.2
STALE = 60.0
"""Seconds without a sign of life from the hub after which the service is not well."""
STARTING = 5.0
"""Seconds in which no line yet is nothing to report."""
SETTLE = 2.0
"""Seconds between looks for decisions of boards that nobody has carried out."""
CERTIFICATE = 60.0
"""Seconds between looks at the certificate's age."""
IDLE = 600.0
"""Seconds after which an unused worker ends."""


def unpermitted(site: Site, study: str) -> DureError | None:
    """Why no question about a study may be worked on at all; `study` is the hub's word, and no path before it is read
    as a hash."""
    if not re.fullmatch("sha256:[0-9a-f]{64}", study):
        problem = Words("The question cannot be read", "질문을 읽을 수 없습니다")
        return PermitError(hospital=site.hospital, problem=problem)
    if not inbox.holds(site, study):
        return FileMissing(path=f"inbox/{study}")
    if inbox.own_permit(site, study) is None:
        problem = Words("It has not permitted this study", "이 연구를 허가하지 않았습니다")
        return PermitError(hospital=site.hospital, problem=problem)
    return None


class SiteService:
    """One hospital's long-lived process. `run` returns after `stop`, with nothing half-done."""

    def __init__(self, folder: Path, health: int | None = None, journal: Journal | None = None) -> None:
        self.site = Site(folder)
        self.journal = journal or Journal(self.site.hospital)
        self.resources = self.site.file.resources
        self._line = Line(folder, self._handle, self._joining)
        self._workers: dict[str, tuple[Worker, float]] = {}
        self._answers: dict[str, Future[bytes]] = {}
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._pool = ThreadPoolExecutor(self.resources.studies, thread_name_prefix="study")
        self._health = Health(health, self._report) if health is not None else None
        self.heads = Heads(folder, self.site.audit, self.site.hospital, self.site.signer())
        self._hub_key = key_of(bytes.fromhex(self._line.membership.hub_key))
        self._said: bool | None = None
        self._told = False
        self._forked: LogForked | None = None
        self._began = time.monotonic()
        self._written = ""
        self._look_again = self._settle_again = 0.0

    def run(self) -> None:
        with only_one(self.site.folder):
            self._serve()

    def _serve(self) -> None:
        preload()
        self._line.open()
        self.journal.say("started", version=VERSION, hub=self._line.membership.address)
        threading.Thread(target=prepare, name="prepare", daemon=True).start()  # seconds of imports; the line is up
        try:
            while not self._stop.wait(TICK):
                try:
                    self._tick()
                except Exception as error:  # a full disk, a half-edited file: the line stays, the next round tries
                    self.journal.say("round failed", level="error", why=type(error).__name__)
                    self._stop.wait(5)
        finally:
            self._end()

    def stop(self) -> None:
        """Ask `run` to return; what workers have begun is stored when they finish, or asked again."""
        self._stop.set()

    # ── what the hub asks ──

    def _handle(self, peer: str, topic: str, body: bytes) -> bytes | Future[bytes]:
        if peer != HUB:
            raise FORM
        if topic == ASK:
            return self._ask(body)
        if topic == "study":
            told = unpack(body)
            who = told["proposer"]
            if not isinstance(who, str) or not plain(who):
                raise FORM
            study = Study.model_validate(json.loads(told["document"]))
            if not inbox.holds(self.site, study.hash):
                inbox.receive(self.site, study, who)
                self.journal.say("study received", study=study.hash)
                if study.replaces:
                    self._drop(study.replaces)
            if study.open is not None and inbox.answer_of(self.site, study.hash) is None:
                open_feasibility.admit(self.site, study, installed_methods())
            return b""
        if topic == "decision":
            given = reviews.decide_shared(self.site, unpack(body), installed_methods())
            self.journal.say("shared board decided", status=given.kind if given else "")
            return b""
        if topic == "stop":
            self._drop(body.decode())
            return b""
        if topic == TOPIC:
            try:
                return self.heads.receive(self._line.membership.alliance, self._hub_key, body)
            except DureError as error:  # a fork: loudly here, and refused there
                self.journal.say(error.code(), level="error", problem=error.text("en"))
                raise
        raise FORM

    def _ask(self, message: bytes) -> bytes | Future[bytes]:
        """A question that is being worked on already, on an earlier connection, is not begun twice."""
        try:
            ask = read_question(message)
        except (ValueError, TypeError, KeyError):
            raise FORM from None
        if inbox.paused(self.site):
            return self._no(SitePaused(hospital=self.site.hospital))
        error = unpermitted(self.site, ask.study)
        if error:  # as the runner would say, before a process is started for a study that nobody permitted
            self.site.audit.append("failed", error=error.code(), run=ask.run, study=ask.study, step=ask.step)
            return self._no(error)
        digest = hashlib.sha256(message).hexdigest()
        with self._lock:
            for old in [key for key, found in self._answers.items() if found.done() and key != digest]:
                del self._answers[old]  # a repeated one is answered from the hospital's store
            found = self._answers.get(digest)
            if found is None or found.done():
                self._answers[digest] = found = self._pool.submit(self._work, ask, message)
            return found

    def _work(self, ask: Ask | Exchange, message: bytes) -> bytes:
        began = time.monotonic()
        with self._lock:
            worker = self._workers[ask.study][0] if ask.study in self._workers else None
            if worker is None:
                worker = Worker(self.site.folder, self.site.hospital, self.resources)
            self._workers[ask.study] = (worker, time.monotonic())
        reply = worker.answer(message)
        seconds = round(time.monotonic() - began, 3)
        stage = {"stage": ask.stage} if isinstance(ask, Exchange) else {}
        about = {"study": ask.study, "run": ask.run, "step": ask.step, **stage}
        self.journal.say("answered", **about, round=ask.round, bytes=len(reply), seconds=seconds)
        return reply

    def _no(self, error: DureError) -> bytes:
        return Answer(self.site.hospital, "error", error=error_data(error)).to_bytes()

    def _drop(self, study: str) -> None:
        with self._lock:
            worker = self._workers.pop(study, None)
        if worker:
            worker[0].stop()
            worker[0].close()
            self.journal.say("run stopped", study=study)

    def _joining(self) -> dict[str, Any]:
        return {"software": VERSION, "paused": inbox.paused(self.site)}

    # ── what the steward decided, and the rest of its round ──

    def _tick(self) -> None:
        up = self._line.up()
        starting = self._said is None and time.monotonic() - self._began < STARTING
        if up != self._said and (up or not starting):
            self._said = up
            if up:
                self.journal.say("connected")
            else:
                self.journal.say("not connected", level="warning", problem=self._line.reason)
        self._write_status()
        self._rest_workers()
        self._settle()
        if not up:
            return
        try:
            self._renew()
            self._hand_in()
            self._show_head()
        except HubUnreachable:
            return  # the next round tries again
        except DureError as error:
            self.journal.say("refused by the hub", level="error", error=error.code(), problem=error.text("en"))
            self._stop.wait(10)

    def _settle(self) -> None:
        """What follows from boards' decisions and was cut by the end of the process that took them."""
        if time.monotonic() < self._settle_again:
            return
        self._settle_again = time.monotonic() + SETTLE
        for hash_ in reviews.unsettled(self.site):
            try:
                given = reviews.settle(self.site, hash_, installed_methods())
                self.journal.say("decision carried out", study=hash_, status=given.kind if given else "")
            except DureError as error:
                self.journal.say("decision not carried out", level="error", study=hash_, problem=error.text("en"))
            except Exception as error:  # a damaged file of one study: the others go on
                self.journal.say("decision not carried out", level="error", study=hash_, why=type(error).__name__)

    def _hand_in(self) -> None:
        """Permits and refusals that the hub has not taken yet, and whether the hospital has paused.

        Raises the last DureError, once everything has been tried; HubUnreachable at once.
        """
        failed: DureError | None = None
        for given in inbox.unsent(self.site):
            hash_ = given.study
            body = {"study": hash_, "kind": given.kind, "envelope": given.envelope, "said": given.said}
            try:
                self._line.call("permit", pack(body))
            except (PermitError, LifecycleError, UnknownStudy, UnknownHospital) as error:  # the hub's last word
                inbox.sent(self.site, hash_, given.digest, error.words())
                self.journal.say("answer refused by the hub", level="error", study=hash_, problem=error.text("en"))
                continue
            except HubUnreachable:
                raise
            except DureError as error:  # those behind it are handed in; it is tried again
                failed = error
                continue
            inbox.sent(self.site, hash_, given.digest)
            if given.kind != "permitted":
                self._drop(hash_)
            self.journal.say("answer sent", study=hash_, status=given.kind)
        paused = inbox.paused(self.site)
        if paused != self._told:
            self._line.call("pause", pack(paused))
            self._told = paused
            self.journal.say("paused" if paused else "resumed")
        if failed:
            raise failed

    def _show_head(self) -> None:
        """The hospital's own log, countersigned by the hub, whenever it has grown."""
        try:
            self.heads.sign()
            if self.heads.problem and self.heads.problem is not self._forked:
                self._forked = self.heads.problem
                self.journal.say("fork", level="error", problem=self._forked.text("en"))
            if self.heads.owes(self._line.membership.alliance):
                self.heads.show(
                    self._line.membership.alliance, self._hub_key, lambda body: self._line.call(TOPIC, body)
                )
        except (LedgerBroken, LogForked, MessageRefused) as error:
            self.journal.say("head refused", level="error", error=error.code(), problem=error.text("en"))
        except (ValueError, KeyError, TypeError):
            self.journal.say("head not countersigned", level="error")

    def _renew(self) -> None:
        asked = self.site.folder / "renew"
        if not asked.exists() and time.monotonic() < self._look_again:
            return
        self._look_again = time.monotonic() + CERTIFICATE
        own = (self.site.folder / "tls.pem").read_bytes()
        begins, expires = certificates.begins(own), certificates.expires(own)
        if asked.exists() or expires - datetime.now(UTC) < (expires - begins) / 3:
            self._line.renew()
            asked.unlink(missing_ok=True)
            self.journal.say(
                "certificate renewed",
                expires=certificates.expires((self.site.folder / "tls.pem").read_bytes()).isoformat(),
            )

    def _rest_workers(self) -> None:
        now = time.monotonic()
        with self._lock:
            resting = [
                study for study, (_, used) in self._workers.items() if now - used > max(IDLE, self.resources.seconds)
            ]
            workers = [self._workers.pop(study)[0] for study in resting]
        for worker in workers:
            worker.close()

    # ── how it is ──

    def _report(self) -> tuple[bool, dict[str, Any]]:
        heard = self._line.heard
        facts: dict[str, Any] = {
            "hospital": self.site.hospital,
            "hub": self._line.membership.address,
            "connected": self._line.up(),
            "paused": inbox.paused(self.site),
            "working": sum(not found.done() for found in list(self._answers.values())),
            "problem": "" if self._line.up() else self._line.reason,
        }
        return self._line.up() and time.time() - heard < STALE, facts

    def _write_status(self) -> None:
        """`service.json`: what `dure site status` shows, written when it changes and every ten seconds."""
        facts = json.dumps({**self._report()[1], "at": int(time.time() // 10 * 10)}, ensure_ascii=False)
        if facts != self._written:
            beside = self.site.folder / "service.json.new"
            beside.write_text(facts, encoding="utf-8")
            beside.replace(self.site.folder / "service.json")
            self._written = facts

    def _end(self) -> None:
        self._line.close()
        self._pool.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            workers = [worker for worker, _ in self._workers.values()]
        for worker in workers:
            worker.stop()
            worker.close()
        if self._health:
            self._health.close()
        (self.site.folder / "service.json").unlink(missing_ok=True)
        with contextlib.suppress(LedgerBroken):  # said when it was found
            self.heads.close()
        self.journal.say("stopped")
