"""The governed demonstration, `dure demo --governed`: from draft to released results among seven hospitals that decide.

One asks for changes, one declines, one withdraws while the study runs, one drops out in the middle of a sum.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dure.demo import governed_telling as telling
from dure.demo import offices
from dure.demo.cast import BOARD, COMPANY, SEVEN, SHARING, Cast, gather
from dure.demo.governed_telling import Happened, Played
from dure.demo.play import Narrator
from dure.errors import DureError
from dure.federation.engine import Engine, Failure
from dure.federation.ledger import Outcome
from dure.federation.local_engine import LocalEngine
from dure.federation.secure_sum.exchange import Exchange, read_question
from dure.guard.log_check import check_log
from dure.guard.permissions import check
from dure.hub import desk, releases, studies
from dure.hub.runs import run_study
from dure.hub.witnessing import keys_of
from dure.language import Words
from dure.report.governed_page import page
from dure.site import inbox, reviews
from dure.site.packet import packet
from dure.site.runner import Runner
from dure.site.settings import keys_of as site_keys
from dure.study.board import Decision, Verdict, sign_decision
from dure.study.differences import differences
from dure.study.document import Bilingual
from dure.study.method import installed_methods
from dure.study.spec import Application, Quorum, Study, canonical_json, read_study

ASKS, DECLINES, WITHDRAWS, DROPS = "Hungary North", "Switzerland", "Cleveland West", "Long Beach A"
STEPS = ("attrition", "model", "table_one")
WITHDRAWAL = ("model", 2)
"""Step and round before which a hospital withdraws."""
DROPOUT = "attrition"
"""Step in whose first sum a hospital falls silent after its masked numbers have arrived."""


def play(folder: Path, narrator: Narrator) -> tuple[Played, dict[str, Any]]:
    """Everything into `folder`, with `report.html` and `result.json`. Raises DureError."""
    began = datetime.now(UTC)
    narrator.heading(Words("Seven hospitals, a company and an office", "병원 일곱 곳, 기업 하나, 사무국"))
    narrator.working(Words("standardising and opening accounts", "표준화와 계정 만들기"))
    cast = gather(folder, narrator.line)
    cast.write_passwords(folder / "people.tsv")
    try:
        scene = _Scene(cast, narrator)
        narrator.heading(Words("A first version, and what the boards say", "첫 판과 위원회의 의견"))
        scene.first_version()
        narrator.heading(Words("A second version: approvals start again", "둘째 판: 승인은 처음부터"))
        scene.second_version()
        narrator.heading(Words("The study runs under masked sums", "가려진 합으로 연구를 실행"))
        outcomes = scene.run()
        narrator.heading(Words("Two people release the results", "두 사람이 결과를 공개"))
        fetched = scene.release(folder)
        narrator.heading(Words("Every log is verified", "모든 기록을 검증"))
        scene.verify()
        played = telling.Played(began, scene.study, cast, scene.happened, outcomes, fetched, scene.logs)
        (folder / "report.html").write_text(page(telling.story(played)), encoding="utf-8")
        result = telling.result_json(played)
        (folder / "result.json").write_text(json.dumps(result, ensure_ascii=False, indent=1), encoding="utf-8")
        return played, result
    finally:
        cast.store.close()


def governed_study() -> Study:
    """The demonstration's question with three steps, and an application that says everything but one thing."""
    study = read_study(offices.STUDY)
    application = Application(
        purpose=Bilingual(
            en="To learn which signs known before angiography go with coronary heart disease.",
            ko="혈관조영 전에 알 수 있는 어떤 징후가 관상동맥질환과 관련되는지 알기 위함.",
        ),
        benefit=Bilingual(en="Fewer angiographies without findings.", ko="소견 없는 혈관조영을 줄임."),
        legal_basis=Bilingual(
            en="Scientific research with pseudonymised data (Personal Information Protection Act, article 28-2).",
            ko="가명정보를 이용한 과학적 연구(개인정보 보호법 제28조의2).",
        ),
        pseudonymisation=Bilingual(
            en="Hospital numbers are replaced when the OMOP database is built.",
            ko="OMOP 데이터베이스를 만들 때 병원 등록번호를 대체함.",
        ),
        recipients=Bilingual(
            en="The company reads released results; nobody reads rows.",
            ko="기업은 공개된 결과만 읽고 행은 아무도 읽지 않음.",
        ),
        risks=Bilingual(en="Totals of few people; the rules refuse them.", ko="적은 사람의 합계. 규칙이 거절함."),
    )
    return study.model_copy(
        update={
            "steps": tuple(
                step.model_copy(update={"parameters": {}}) if step.name == "attrition" else step
                for step in (study.step(name) for name in STEPS)
            ),
            "application": application,
            "quorum": Quorum(at_least=4),
        }
    )


class _Scene:
    """The play, act by act; `happened` is what the report tells."""

    def __init__(self, cast: Cast, narrator: Narrator) -> None:
        self.cast, self.narrator = cast, narrator
        self.methods = installed_methods()
        self.study = governed_study()
        self.happened: list[Happened] = []
        self._done: set[str] = set()
        self.logs: dict[str, tuple[int, int]] = {}
        self.runners = {name: Runner(site, self.methods) for name, site in cast.sites.items()}

    def tell(self, who: str, words: Words, kind: str = "done") -> None:
        self.happened.append(Happened(datetime.now(UTC), who, words, kind))
        self.narrator.line(Words(f"{who}: {words.en}", f"{who}: {words.ko}"))

    # ── reviews ──

    def first_version(self) -> None:
        self._submit(self.study)
        early = [name for name in SEVEN if name not in (ASKS, DECLINES)][:2]
        for name in early:
            self._approve(name)
        said = "How long is what leaves kept? The application does not say."
        text = packet(self.study, self.methods, self.cast.sites[ASKS].limits, hospital=ASKS, proposer=COMPANY)
        (self.cast.sites[ASKS].folder / "packet.md").write_text(text, encoding="utf-8")
        self._decide(ASKS, "irb", "ask", said=said)
        self.tell(
            ASKS,
            Words(
                f"retention is not stated in the packet; its ethics board asks: “{said}”",
                f"심의 자료에 보유 기간이 없음. IRB가 보완 요청: “{said}”",
            ),
            "waiting",
        )

    def second_version(self) -> None:
        old = self.study
        told = Bilingual(
            en="Rows are not kept; totals of the run for five years.", ko="행은 보관하지 않음. 실행의 합계는 5년 보관."
        )
        application = old.application.model_copy(update={"retention": told})
        self.study = old.model_copy(update={"application": application, "replaces": old.hash})
        void = sum(inbox.own_permit(site, old.hash) is not None for site in self.cast.sites.values())
        self._submit(self.study)
        still = sum(inbox.own_permit(site, old.hash) is not None for site in self.cast.sites.values())
        changed = "; ".join(words.en for words in differences(old, self.study))
        changed_ko = "; ".join(words.ko for words in differences(old, self.study))
        self.tell(COMPANY, Words(f"a new version: {changed}", f"새 판: {changed_ko}"))
        self.tell(
            "Alliance",
            Words(f"{void - still} permits of the old version are void", f"옛 판의 허가 {void - still}건이 무효가 됨"),
        )
        for name in SEVEN:
            if name == DECLINES:
                self._decide(name, "drb", "decline", said="Too few people without the disease here.")
            elif name not in SHARING:
                self._approve(name)
        for name in SHARING:
            self._decide(name, "irb", "approve")
        self._shared()
        permitted = len(studies.permits(self.cast.store, self.study.hash))
        self.tell(
            "Alliance",
            Words(
                f"{permitted} of {len(SEVEN)} hospitals permit it, more than its quorum asks: it may run",
                f"{len(SEVEN)}곳 가운데 {permitted}곳이 허가. 정족수를 넘어 실행할 수 있음",
            ),
        )

    def _submit(self, study: Study) -> None:
        actor = self.cast.at_hub("scientist")
        desk.submit(self.cast.store, self.methods, actor, canonical_json(study).encode())
        self.tell(COMPANY, Words(f"submits {study.hash[7:19]}", f"{study.hash[7:19]} 제출"))
        for name, site in self.cast.sites.items():
            inbox.receive(site, study, COMPANY)
            studies.delivered(self.cast.store, study.hash, name)

    def _approve(self, hospital: str) -> None:
        for board in ("irb", "drb"):
            if not (board == "drb" and hospital in SHARING):
                self._decide(hospital, board, "approve")

    def _decide(self, hospital: str, board: Any, verdict: Verdict, said: str = "") -> None:
        actor = self.cast.at(hospital, board)
        answer = reviews.decide(
            self.cast.sites[hospital], self.study.hash, actor, board, verdict, self.methods, days=180, said=said
        )
        self._hand_in(hospital, answer)

    def _shared(self) -> None:
        decision = Decision(
            study=self.study.hash,
            board="drb",
            verdict="approve",
            name=BOARD,
            hospitals=SHARING,
            by=BOARD,
            at=datetime.now(UTC),
        )
        envelope = sign_decision(decision, self.cast.board)
        studies.receive_board_decision(self.cast.store, self.study.hash, BOARD, envelope)
        self.tell(
            BOARD,
            Words(
                f"one signed decision for {' and '.join(SHARING)}", f"{', '.join(SHARING)}을(를) 위한 서명된 결정 하나"
            ),
        )
        for name in SHARING:
            self._hand_in(name, reviews.decide_shared(self.cast.sites[name], envelope, self.methods))

    def _hand_in(self, hospital: str, answer: inbox.HospitalAnswer | None) -> None:
        if answer is None:
            return
        store, hash_ = self.cast.store, self.study.hash
        studies.receive_answer(store, hash_, hospital, answer.kind, answer.envelope, answer.said)
        words = telling.ANSWERS[answer.kind]
        said = f": “{answer.said}”" if answer.said else ""
        if answer.kind != "changes_asked":
            self.tell(hospital, Words(words.en + said, words.ko + said), answer.kind)

    # ── the run ──

    def run(self) -> Mapping[str, Outcome]:
        store, hash_ = self.cast.store, self.study.hash
        local = LocalEngine({name: runner.answer for name, runner in self.runners.items()})
        engine = _Trouble(local, self._withdrawn, self._dropped)
        outcomes: Mapping[str, Outcome] = {}
        for _ in range(4):  # a run that waits looks again, as the hub's service does
            _, outcomes = run_study(store, hash_, engine, self.methods, progress=self._progress)
            state = studies.read(store, hash_)[1]
            if state != "waiting":
                break
            self.tell(
                "Alliance",
                Words("the run waits, then goes on with those who remain", "실행이 기다렸다가 남은 병원과 계속"),
            )
        self.cast.countersign()
        return outcomes

    def _progress(self, event: str, details: Mapping[str, Any]) -> None:
        if event == "round":
            self.narrator.working(
                Words(
                    f"{details['step']}: round {details['round']}", f"{details['step']}: {details['round']}번째 라운드"
                )
            )
        elif event == "outcome" and details["status"] != "waiting" and details["step"] not in self._done:
            self._done.add(details["step"])
            status = telling.STATUSES[details["status"]]
            self.tell("Alliance", Words(f"step {details['step']}: {status.en}", f"{details['step']} 단계: {status.ko}"))

    def _withdrawn(self) -> None:
        actor, site = self.cast.at(WITHDRAWS, "steward"), self.cast.sites[WITHDRAWS]
        reviews.withdraw(site, self.study.hash, actor, "A patient group objected.", difference=True)
        self._hand_in(WITHDRAWS, inbox.answer_of(site, self.study.hash))

    def _dropped(self) -> None:
        self.tell(
            DROPS,
            Words(
                "falls silent after its masked numbers arrived; the others' shares open the sum all the same",
                "가려진 수치가 도착한 뒤 응답이 끊김. 다른 병원들의 조각으로 합은 열림",
            ),
            "waiting",
        )

    # ── release ──

    def release(self, folder: Path) -> dict[str, Any]:
        store, hash_ = self.cast.store, self.study.hash
        with self._refused(COMPANY, Words("tries to read the queue", "공개 대기열을 읽으려 함")):
            releases.queue(store, self.methods, self.cast.at_hub("scientist"))
        with self._refused(COMPANY, Words("tries to fetch before release", "공개 전에 결과를 받으려 함")):
            desk.released(store, hash_, self.methods)
        context = {
            "contents": "A model of disease and a first table, over five hospitals together.",
            "use": "An internal report of the company and a paper with the hospitals.",
        }
        releases.ask(store, hash_, self.cast.at_hub("scientist"), context)
        self.tell(COMPANY, Words("asks for release, with its context", "맥락을 적어 공개를 요청"))
        item = releases.waiting(store, hash_, self.methods)
        for step, why in item.left_out.items():
            self.tell("Alliance", Words(f"{step} is left out: {why.en}", f"{step} 제외: {why.ko}"), "waiting")
        for name in ("office", "release board"):
            releases.decide(store, hash_, self.cast.at_hub(name), item.digest, True, self.methods)
            self.tell(name, Words("approves exactly this content", "이 내용을 승인"))
        fetched = desk.released(store, hash_, self.methods)
        scientist = self.cast.at_hub("scientist")
        check(scientist, "fetch", store.submission(hash_)[1])
        self.tell(COMPANY, Words("reads the released results", "공개된 결과를 읽음"))
        return fetched

    @contextmanager
    def _refused(self, who: str, words: Words) -> Iterator[None]:
        try:
            yield
        except DureError as error:
            self.tell(
                who, Words(f"{words.en}: refused ({error.code()})", f"{words.ko}: 거절({error.code()})"), "refused"
            )
        else:
            raise AssertionError(f"{who}: {words.en}, and nobody refused")

    def verify(self) -> None:
        """Every log against its signed heads, and against what the other side has seen of it."""
        self.cast.countersign()
        hub, sites = self.cast.hub, self.cast.sites
        found = check_log(hub.folder, keys_of(hub, self.cast.store), [site.folder for site in sites.values()])
        self.logs["hub"] = (found.lines, len(found.countersigned))
        for name, site in sites.items():
            checked = check_log(site.folder, site_keys(site.folder), [hub.folder])
            self.logs[name] = (checked.lines, len(checked.countersigned))
        lines = sum(count for count, _ in self.logs.values())
        self.tell(
            "auditor",
            Words(
                f"{len(self.logs)} logs, {lines:,} lines: unbroken, and the same that others countersigned",
                f"기록 {len(self.logs)}개, {lines:,}줄: 끊김 없고 다른 곳에서 확인한 것과 같음",
            ),
        )


class _Trouble:
    """An engine in which one hospital falls silent in the middle of a sum, and one withdraws before a round."""

    def __init__(self, engine: Engine, withdraw: Callable[[], None], drop: Callable[[], None]) -> None:
        self._engine, self._withdraw, self._drop = engine, withdraw, drop
        self._silent: bytes | None = None
        self._withdrawn = False

    def ask(self, messages: Mapping[str, bytes], timeout: float) -> Mapping[str, bytes | Failure]:
        asked = {name: read_question(message) for name, message in messages.items()}
        exchange = next((one for one in asked.values() if isinstance(one, Exchange)), None)
        if exchange and not self._withdrawn and (exchange.step, exchange.round) == WITHDRAWAL:
            self._withdrawn = True
            self._withdraw()
        if exchange and self._silent is None and exchange.step == DROPOUT and exchange.stage == "set":
            self._silent = exchange.session
            self._drop()
        away = DROPS if exchange and exchange.session == self._silent and exchange.stage in ("set", "reveal") else None
        replies = dict(self._engine.ask({n: m for n, m in messages.items() if n != away}, timeout))
        if away and away in messages:
            replies[away] = Failure("the line is cut")
        return replies
