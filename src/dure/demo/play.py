"""The demonstration from its first export to its report, told step by step."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol

from dure.demo import alliance as stage
from dure.demo import comparison, oracle, telling
from dure.federation.ledger import Outcome
from dure.hub.runs import run_study
from dure.language import Words
from dure.report.html import page
from dure.report.story import Story
from dure.study.method import Methods, installed_methods


class Narrator(Protocol):
    """Who tells the demonstration: headings, finished lines, and what is being worked on."""

    def heading(self, words: Words) -> None: ...

    def line(self, words: Words) -> None: ...

    def working(self, words: Words) -> None: ...


def play(
    folder: Path, narrator: Narrator, engine: Literal["local", "flare"] = "local", scheme: str = "tcp"
) -> tuple[Story, dict[str, Any]]:
    """Run everything into `folder`; the story and the result are also written there.

    With the engine `flare` the hub and every hospital are processes of their own, which meet over `scheme` with
    certificates; with `local` they share this one.

    Writes `result.json`, `report.html`, the hospitals' and the hub's files. Raises DureError.
    """
    oracle.require()
    seconds: dict[str, float] = {}
    methods = installed_methods()
    study = stage.demo_study(methods)

    narrator.heading(Words("Each hospital standardises its own export", "병원마다 자기 내보내기를 표준화합니다"))
    with _timed(seconds, "standardise"):
        sites, _ = stage.open_hospitals(folder, narrator.line)

    narrator.heading(Words("The study is submitted, reviewed and permitted", "연구를 제출하고 검토하고 허가합니다"))
    teller = _Teller(narrator, seconds, methods)
    with ExitStack() as stack:
        if engine == "flare":
            from dure.demo import services

            with _timed(seconds, "join"):
                meeting = services.joined(folder, sites, methods, study, scheme, narrator.line)
                alliance, researcher, _ = stack.enter_context(meeting)
        else:
            alliance = stage.join(folder, sites, methods, study)
            stack.callback(alliance.store.close)
        with _timed(seconds, "permit"):
            _permitted(alliance, narrator, at_hub=engine == "local")
        narrator.heading(Words("The hospitals answer; only sums leave", "병원들이 답하고, 합만 나갑니다"))
        if engine == "flare":
            outcomes = services.followed(alliance, researcher, teller)
        else:
            _, outcomes = run_study(alliance.store, study.hash, alliance.engine, methods, progress=teller)
        return _told(folder, narrator, alliance, outcomes, seconds)


def _permitted(alliance: stage.Alliance, narrator: Narrator, at_hub: bool) -> None:
    """Every hospital reviews and signs; its service hands the permit in, or it is handed over here."""
    narrator.line(Words(f"Study {alliance.study.hash[:19]}…", f"연구 {alliance.study.hash[:19]}…"))
    for hospital in alliance.sites:
        stage.permit(alliance, hospital, at_hub=at_hub)
        narrator.line(
            Words(
                f"{hospital} signed its permit (per_hospital, difference)",
                f"{hospital}: 허가서에 서명(per_hospital, difference)",
            )
        )
    if stage.NETWORK not in alliance.methods:
        narrator.line(
            Words(
                "The network step is left out: its package is not installed (pip install ./examples/dure_network)",
                "신경망 단계는 뺍니다: 패키지가 설치되어 있지 않습니다(pip install ./examples/dure_network)",
            )
        )


def _told(
    folder: Path,
    narrator: Narrator,
    alliance: stage.Alliance,
    outcomes: Mapping[str, Outcome],
    seconds: dict[str, float],
) -> tuple[Story, dict[str, Any]]:
    """Compared, released and written down."""
    narrator.heading(Words("For comparison: each alone, and pooled", "비교: 각 병원 단독, 그리고 자료 모음"))
    narrator.line(
        Words(
            "The demonstration may pool because it owns all four.",
            "시연은 네 병원의 자료를 모두 갖고 있어 모을 수 있습니다.",
        )
    )
    with _timed(seconds, "comparison"):
        narrator.working(Words("fitting each hospital alone and pooled rows", "병원별 분석과 자료를 모은 분석"))
        compared = comparison.compare(alliance)
        consulted = oracle.consult()
    played = telling.Played(alliance, outcomes, compared, consulted, seconds)
    coefficients, errors = telling.differences(played)
    narrator.line(
        Words(
            f"Against statsmodels on the raw file: coefficients {coefficients:.1e}, standard errors {errors:.1e}",
            f"원자료에 대한 statsmodels와의 차이: 계수 {coefficients:.1e}, 표준오차 {errors:.1e}",
        )
    )
    narrator.heading(Words("The board releases, the report is written", "심의위원회가 공개를 승인하고 보고서를 씁니다"))
    stage.release(alliance)
    narrator.line(Words("Released: rounded counts, no small cells", "공개: 수는 반올림, 작은 칸은 감춤"))
    with _timed(seconds, "report"):
        narrator.working(Words("writing the report", "보고서 작성"))
        told = telling.story(played)
        (folder / "report.html").write_text(page(told), encoding="utf-8")
    result = telling.result_json(played)
    (folder / "result.json").write_text(json.dumps(result, ensure_ascii=False, indent=1), encoding="utf-8")
    return told, result


class _Teller:
    """Turns the run's progress into lines, and times each step."""

    def __init__(self, narrator: Narrator, seconds: dict[str, float], methods: Methods) -> None:
        self._narrator, self._seconds, self._methods = narrator, seconds, methods
        self._began, self._rounds, self._title = 0.0, 0, Words("–", "–")

    def __call__(self, event: str, details: Mapping[str, Any]) -> None:
        if event == "step":
            self._began, self._rounds = time.perf_counter(), 0
            self._title = self._methods[details["method"]].title
            self._narrator.working(Words(f"{details['step']}", f"{details['step']}"))
        elif event == "round":
            self._rounds += 1
            fold = f" without {details['fold']}" if details["fold"] else ""
            fold_ko = f", {details['fold']} 제외" if details["fold"] else ""
            step, round_ = details["step"], details["round"]
            self._narrator.working(Words(f"{step}{fold}: round {round_}", f"{step}{fold_ko}: {round_}번째 라운드"))
        elif event == "outcome":
            step = details["step"]
            self._seconds[step] = time.perf_counter() - self._began
            said, title = OUTCOMES[details["status"]], self._title
            rounds = f"{self._rounds} round{'' if self._rounds == 1 else 's'}"
            self._narrator.line(
                Words(
                    f"{step} · {title.en}: {said.en}, {rounds}",
                    f"{step} · {title.ko}: {said.ko}, 라운드 {self._rounds}번",
                )
            )
        elif event == "dropped":
            error, hospital = details["error"], details["hospital"]
            self._narrator.line(Words(f"{hospital}: {error.text('en')}", f"{hospital}: {error.text('ko')}"))


OUTCOMES = {
    "finished": Words("done", "완료"),
    "refused": Words("refused by a rule", "규칙에 따라 거절"),
    "not_estimable": Words("not estimable", "추정 불가"),
    "waiting": Words("waiting for a permission", "허가 대기"),
    "failed": Words("failed", "실패"),
    "skipped": Words("skipped", "건너뜀"),
}


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - began
