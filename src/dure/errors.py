"""Every error of dure in one tree; each says what happened, why, and what to do now, in both languages.

    DureError
    ├── InputError            what a person wrote or handed over cannot be used
    │   ├── FileMissing · WrongEncoding · MalformedYaml · InvalidDocument · MissingPackage · NotEnoughHospitals
    │   ├── UnknownColumn · UnknownMethod · UnknownParameter · InvalidParameter · UnknownStep · UnknownHospital
    │   └── UnknownStudy · FormulaError · NotACdm · Unanswerable · AlreadyRunning
    ├── DataError             the data do not fit what was asked of them
    │   ├── TextWhereNumbers · UndeclaredLevel · NotAnOutcome · NotACount · EmptyExport · UnmappedColumn
    │   └── NobodyLeft · SumOutOfRange · NumbersWithheld
    ├── NotEstimable          the data cannot answer the question
    │   └── OneClass · Separation · NotConverged · NothingVaries · NoEstimate
    ├── Refused               a disclosure rule said no (rule name and remedy travel; cells and counts never do)
    ├── RunWaits              a run waits for a hospital's permission
    ├── QuorumMissed          too few hospitals take part for the study's own rule
    ├── StepSkipped           a step uses one that has no result
    ├── PermitError           a permit is missing, expired, for another study, or not truly signed
    ├── LifecycleError        this step of a study's life is not open now, or not to this person
    ├── NotPermitted          the permissions table does not give this to the person's role
    ├── DecisionRefused       a board's or a release's decision cannot be taken as it is
    ├── BoardsDecide          a hospital with accounts signs no permit past its boards
    ├── AccountError          who somebody is, and whether they may sign in
    │   └── NotSignedIn · SignInRefused · TooManyAttempts · WeakPassword · AccountConflict
    ├── LogForked             an audit log is not the one whose signed head somebody has seen
    ├── MembershipError       the hub and a member do not come together
    │   └── TokenRefused · MessageRefused · ProtocolMismatch · HubUnreachable · NotAMember · MemberConflict · KeyExposed
    └── SiteError             a hospital could not answer
        └── SiteFailed · SitePaused · LimitReached · AnswerBroken · SumRefused · LedgerBroken

Fields of an error are names (columns, steps, rules), never values or counts of patients.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from typing import ClassVar

from dure.language import Language, Words


class DureError(Exception):
    """Root of the tree. Subclasses hold three sentences; instances fill the `{fields}` in them."""

    what: ClassVar[Words] = Words("Something went wrong in dure.", "dure에서 문제가 생겼습니다.")
    why: ClassVar[Words] = Words("The cause is not known.", "원인을 알 수 없습니다.")
    remedy: ClassVar[Words] = Words(
        "Run the command again with --debug and report what it prints.",
        "--debug를 붙여 다시 실행하고, 출력된 내용을 알려 주십시오.",
    )

    def __init__(self, **fields: object) -> None:
        self.fields = fields
        super().__init__(self.text("en"))

    @classmethod
    def code(cls) -> str:
        """The error's name in messages and in the docs: `UnknownColumn` is `unknown-column`."""
        return re.sub(r"(?<!^)(?=[A-Z])", "-", cls.__name__).lower()

    def parts(self, language: Language | None = None) -> tuple[str, str, str]:
        """What happened, why, what to do: three sentences in one language."""
        filled = [words.say(language) for words in (self.what, self.why, self.remedy)]
        said = {name: self._said(value, language) for name, value in self.fields.items()}
        return (filled[0].format(**said), filled[1].format(**said), filled[2].format(**said))

    def text(self, language: Language | None = None) -> str:
        what, why, remedy = self.parts(language)
        return f"{what} {why} {remedy}"

    def words(self) -> Words:
        """`text` in both languages."""
        return Words(self.text("en"), self.text("ko"))

    @staticmethod
    def _said(value: object, language: Language | None) -> object:
        return value.say(language) if isinstance(value, Words) else value


def nearest(name: str, known: Iterable[str]) -> Words:
    """The sentence an unknown name gets: the nearest known one, else the list of all."""
    known = sorted({str(item) for item in known})
    close = difflib.get_close_matches(name.lower(), [item.lower() for item in known], n=1, cutoff=0.5)
    if close:
        match = next(item for item in known if item.lower() == close[0])
        return Words(f"Did you mean '{match}'?", f"'{match}'을(를) 뜻하셨습니까?")
    if not known:
        return Words("There is none to choose from.", "고를 수 있는 것이 없습니다.")
    shown = ", ".join(known[:20]) + (", …" if len(known) > 20 else "")
    return Words(f"Known here: {shown}.", f"여기서 쓸 수 있는 것: {shown}.")


# ── what a person wrote or handed over ────────────────────────────────────────────────────────────


class InputError(DureError):
    """What a person wrote or handed over cannot be used as it is."""


class FileMissing(InputError):
    what = Words("The file '{path}' cannot be read.", "'{path}' 파일을 읽을 수 없습니다.")
    why = Words("There is no such file here.", "이 위치에 그런 파일이 없습니다.")
    remedy = Words(
        "Check the path; relative paths start from the folder you run the command in.",
        "경로를 확인하십시오. 상대 경로는 명령을 실행한 폴더에서 시작합니다.",
    )


class WrongEncoding(InputError):
    what = Words("The file '{path}' cannot be read as text.", "'{path}' 파일을 텍스트로 읽을 수 없습니다.")
    why = Words(
        "It is not written in {encoding} (first unreadable byte at position {position}).",
        "{encoding}(으)로 쓰인 파일이 아닙니다(읽을 수 없는 첫 바이트: {position}번째).",
    )
    remedy = Words(
        "Name its encoding (--encoding cp949 for older Korean exports, or `encoding:` in the mapping plan), "
        "or save it as UTF-8.",
        "인코딩을 지정하거나(한국의 옛 내보내기는 --encoding cp949, 매핑 계획에서는 `encoding:`) UTF-8로 저장하십시오.",
    )


class MalformedYaml(InputError):
    what = Words(
        "'{path}' is not valid YAML: line {line}, column {column}.",
        "'{path}'은(는) 올바른 YAML이 아닙니다: {line}행 {column}열.",
    )
    why = Words("{problem}.", "{problem}.")
    remedy = Words(
        "Look at that line and the one above it: indentation, a missing colon, or an unclosed quote.",
        "그 행과 바로 윗행에서 들여쓰기, 빠진 쌍점, 닫히지 않은 따옴표를 확인하십시오.",
    )


class InvalidDocument(InputError):
    what = Words(
        "'{path}', line {line}: '{field}' is not as it should be.",
        "'{path}' {line}행: '{field}' 항목이 맞지 않습니다.",
    )
    why = Words("{problem}.", "{problem}.")
    remedy = Words("{hint}", "{hint}")


class MissingPackage(InputError):
    what = Words("{purpose} needs the package '{package}'.", "{purpose}에는 '{package}' 패키지가 필요합니다.")
    why = Words("It is not part of the light default install.", "가벼운 기본 설치에는 들어 있지 않습니다.")
    remedy = Words("Install it: {command}", "설치하십시오: {command}")


class NotEnoughHospitals(InputError):
    what = Words("The question names {named} hospital(s).", "질문에 병원이 {named}곳만 있습니다.")
    why = Words("An alliance needs at least {needed}.", "연합에는 적어도 {needed}곳이 필요합니다.")
    remedy = Words(
        "Check that the hospital column is the right one and names each hospital.",
        "병원 열이 맞는지, 병원마다 이름이 있는지 확인하십시오.",
    )


class UnknownColumn(InputError):
    what = Words("There is no column '{column}'{place}.", "'{column}' 열이 없습니다{place}.")
    why = Words(
        "A formula, parameter or plan names it, and the data do not have it.",
        "식이나 매개변수, 계획에 이름이 있으나 자료에는 없습니다.",
    )
    remedy = Words("{nearest}", "{nearest}")

    def __init__(self, column: str, known: Iterable[str], place: str = "") -> None:
        known = list(known)
        super().__init__(column=column, place=f" ({place})" if place else "", nearest=nearest(column, known))


class UnknownMethod(InputError):
    what = Words("There is no method '{method}'.", "'{method}'(이)라는 방법이 없습니다.")
    why = Words(
        "Neither dure nor an installed method package offers it.",
        "dure에도, 설치된 방법 패키지에도 없습니다.",
    )
    remedy = Words("{nearest} `dure methods` lists them all.", "{nearest} `dure methods`가 모두 보여 줍니다.")

    def __init__(self, method: str, known: Iterable[str]) -> None:
        super().__init__(method=method, nearest=nearest(method, known))


class UnknownParameter(InputError):
    what = Words("'{method}' has no parameter '{parameter}'.", "'{method}'에는 '{parameter}' 매개변수가 없습니다.")
    why = Words(
        "A parameter that is not known would silently do nothing.",
        "모르는 매개변수는 아무 일도 하지 않고 지나가게 됩니다.",
    )
    remedy = Words(
        "{nearest} `dure methods {method}` describes each.",
        "{nearest} `dure methods {method}`가 하나씩 설명합니다.",
    )

    def __init__(self, method: str, parameter: str, known: Iterable[str]) -> None:
        super().__init__(method=method, parameter=parameter, nearest=nearest(parameter, known))


class InvalidParameter(InputError):
    what = Words(
        "The parameter '{parameter}' of '{method}' cannot be used.",
        "'{method}'의 '{parameter}' 매개변수를 쓸 수 없습니다.",
    )
    why = Words("{problem}.", "{problem}.")
    remedy = Words(
        "Correct it: `dure methods`, `dure --help` or, in Python, help(dure.simulate) say what it takes.",
        "고치십시오. `dure methods`, `dure --help`, 파이썬에서는 help(dure.simulate)가 받을 수 있는 값을 알려 줍니다.",
    )


class UnknownStep(InputError):
    what = Words(
        "The step '{step}' uses '{used}', which no earlier step is named.",
        "'{step}' 단계가 쓰는 '{used}'(이)라는 앞 단계가 없습니다.",
    )
    why = Words(
        "Steps run in order; each may use only those above it.",
        "단계는 순서대로 실행되며, 위에 있는 단계만 쓸 수 있습니다.",
    )
    remedy = Words("{nearest}", "{nearest}")

    def __init__(self, step: str, used: str, known: Iterable[str]) -> None:
        super().__init__(step=step, used=used, nearest=nearest(used, known))


class UnknownHospital(InputError):
    what = Words("There is no hospital '{hospital}' here.", "'{hospital}'(이)라는 병원이 여기에는 없습니다.")
    why = Words("The alliance's list of hospitals does not name it.", "연합의 병원 목록에 없습니다.")
    remedy = Words("{nearest}", "{nearest}")

    def __init__(self, hospital: str, known: Iterable[str]) -> None:
        super().__init__(hospital=hospital, nearest=nearest(hospital, known))


class UnknownStudy(InputError):
    what = Words("There is no study '{study}' here.", "'{study}' 연구가 여기에 없습니다.")
    why = Words("Nobody has submitted it to this store.", "이곳에 제출된 적이 없습니다.")
    remedy = Words("{nearest}", "{nearest}")

    def __init__(self, study: str, known: Iterable[str]) -> None:
        super().__init__(study=study, nearest=nearest(study, known))


class FormulaError(InputError):
    what = Words("The formula '{formula}' cannot be read.", "식 '{formula}'을(를) 읽을 수 없습니다.")
    why = Words("{problem}.", "{problem}.")
    remedy = Words(
        "Write it as outcome ~ term + term, with C(column) for categories, a:b or a*b for interactions and "
        "log, log2, log10, log1p, exp, sqrt, logit or I(x**2) for transformations, and "
        "ns(x, knots=(…), bounds=(…)) or bs(…) for splines.",
        "결과 ~ 항 + 항 꼴로 쓰십시오. 범주는 C(열), 상호작용은 a:b 또는 a*b, 변환은 log, log2, log10, log1p, exp, "
        "sqrt, logit, I(x**2), 스플라인은 ns(x, knots=(…), bounds=(…))나 bs(…)를 씁니다.",
    )


class NotACdm(InputError):
    what = Words("'{path}' cannot serve as an OMOP database.", "'{path}'을(를) OMOP 데이터베이스로 쓸 수 없습니다.")
    why = Words("{problem}.", "{problem}.")
    remedy = Words("{hint}", "{hint}")


class Unanswerable(InputError):
    what = Words(
        "The study asks what an OMOP database cannot answer: '{part}'.",
        "OMOP 데이터베이스가 답할 수 없는 질문이 연구에 있습니다: '{part}'.",
    )
    why = Words("{problem}.", "{problem}.")
    remedy = Words("{hint}", "{hint}")


class AlreadyRunning(InputError):
    what = Words("'{what}' is in use.", "'{what}'은(는) 이미 쓰고 있습니다.")
    why = Words("Another process has this folder or port open.", "다른 프로세스가 이 폴더나 포트를 열고 있습니다.")
    remedy = Words(
        "Stop the other service first (systemctl stop, or its process id), or choose another port.",
        "먼저 다른 서비스를 멈추거나(systemctl stop 또는 프로세스 번호) 다른 포트를 고르십시오.",
    )


# ── the data do not fit ──────────────────────────────────────────────────────────────────────────


class DataError(DureError):
    """The data do not fit what was asked of them."""


class TextWhereNumbers(DataError):
    what = Words(
        "The column '{column}' holds text where numbers belong{place}.",
        "'{column}' 열에 숫자가 아니라 글자가 들어 있습니다{place}.",
    )
    why = Words(
        "It is used as a number, and at least one of its values is not one.",
        "숫자로 쓰이는 열인데 숫자가 아닌 값이 있습니다.",
    )
    remedy = Words(
        "Use it as a category, C({column}), or state its missing marks and units so that it can be read as numbers.",
        "범주라면 C({column})로 쓰고, 숫자라면 결측 표시와 단위를 밝혀 숫자로 읽히게 하십시오.",
    )

    def __init__(self, column: str, place: str = "") -> None:
        super().__init__(column=column, place=f" ({place})" if place else "")


class UndeclaredLevel(DataError):
    what = Words(
        "The column '{column}' holds a level that the study does not declare.",
        "'{column}' 열에 연구가 선언하지 않은 수준이 있습니다.",
    )
    why = Words(
        "Levels come from the study, never from one hospital's rows, so that all hospitals send the same columns.",
        "모든 병원이 같은 열을 보내도록, 수준은 한 병원의 자료가 아니라 연구가 정합니다.",
    )
    remedy = Words(
        "Add the level to `levels` of '{column}' in the study, or map it to a declared one at the hospital.",
        "연구에서 '{column}'의 `levels`에 그 수준을 더하거나, 병원에서 선언된 수준으로 옮기십시오.",
    )


class NotAnOutcome(DataError):
    what = Words(
        "'{column}' cannot be the outcome of a '{family}' model.",
        "'{column}'은(는) '{family}' 모형의 결과 변수가 될 수 없습니다.",
    )
    why = Words("{problem}.", "{problem}.")
    remedy = Words("{hint}", "{hint}")


class NotACount(DataError):
    what = Words("'{column}' cannot be used as {role}.", "'{column}'을(를) {role}(으)로 쓸 수 없습니다.")
    why = Words("{problem}.", "{problem}.")
    remedy = Words(
        "Correct the column at the hospital, or choose another.",
        "병원에서 그 열을 바로잡거나 다른 열을 고르십시오.",
    )


class EmptyExport(DataError):
    what = Words("The export '{path}' holds no rows.", "내보내기 '{path}'에 행이 없습니다.")
    why = Words("Only its header was found, or not even that.", "머리글만 있거나 그것도 없습니다.")
    remedy = Words(
        "Export it again from the hospital's system, then run this step again.",
        "병원 시스템에서 다시 내보낸 뒤 이 단계를 다시 실행하십시오.",
    )


class UnmappedColumn(DataError):
    what = Words(
        "'{path}' does not fit its mapping plan: '{column}'.",
        "'{path}'이(가) 매핑 계획과 맞지 않습니다: '{column}'.",
    )
    why = Words("{problem}.", "{problem}.")
    remedy = Words("{hint}", "{hint}")


class NobodyLeft(DataError):
    what = Words("Nobody is left to analyse.", "분석할 사람이 남지 않았습니다.")
    why = Words(
        "No person at any hospital has a value in every column that the question uses ({columns}).",
        "질문이 쓰는 모든 열({columns})에 값이 있는 사람이 어느 병원에도 없습니다.",
    )
    remedy = Words(
        "Leave out the column that is always missing, or check its mapping.",
        "늘 비어 있는 열을 빼거나 매핑을 확인하십시오.",
    )


class SumOutOfRange(DataError):
    what = Words(
        "A number of '{array}' is too large for a masked sum.", "'{array}'의 수가 가린 합에 넣기에는 너무 큽니다."
    )
    why = Words(
        "Numbers of this kind have to stay below 2^{bits}, so that the sum over all hospitals fits.",
        "이런 수는 2^{bits}보다 작아야 모든 병원의 합이 범위 안에 듭니다.",
    )
    remedy = Words(
        "Use larger units, take a logarithm, or cap the column.",
        "더 큰 단위를 쓰거나 로그를 취하거나 열에 상한을 두십시오.",
    )


class NumbersWithheld(DataError):
    what = Words(
        "A hospital had no numbers for this round, or such as a masked sum cannot hold.",
        "어느 병원에 이 회차의 수치가 없거나, 가린 합에 넣을 수 없는 수치가 있습니다.",
    )
    why = Words(
        "Which hospital it was stays among the hospitals: it would tell of its patients.",
        "어느 병원인지는 그 병원의 환자에 대해 알려 주므로 병원 밖으로 나가지 않습니다.",
    )
    remedy = Words(
        "Ask the hospitals to look for a line 'failed' or 'refused' of this run in their audit logs, which names the "
        "reason. Often larger units, a logarithm or a capped column help; where a step inside that hospital has no "
        "result, leave the hospital out, or the step.",
        "병원마다 감사 기록에서 이 실행의 'failed'나 'refused' 줄과 그 이유를 찾아보도록 요청하십시오. "
        "단위를 키우거나 로그를 취하거나 열에 상한을 두면 풀리는 경우가 많습니다. "
        "그 병원 안의 단계에 결과가 없다면 그 병원이나 단계를 빼십시오.",
    )


# ── the data cannot answer ───────────────────────────────────────────────────────────────────────


class NotEstimable(DureError):
    """The data cannot answer the question."""


class OneClass(NotEstimable):
    what = Words("The outcome '{outcome}' has only one class.", "결과 변수 '{outcome}'에 한 가지 값만 있습니다.")
    why = Words(
        "Everyone analysed has the same outcome, so nothing can tell cases from non-cases.",
        "분석 대상 모두의 결과가 같아 환자와 비환자를 가를 수 없습니다.",
    )
    remedy = Words(
        "Widen the cohort or the definition of the outcome, or add hospitals.",
        "코호트나 결과 정의를 넓히거나 병원을 더하십시오.",
    )


class Separation(NotEstimable):
    what = Words("Not estimable: separation ({terms}).", "추정 불가: 분리({terms}).")
    why = Words(
        "These terms tell the outcomes apart perfectly for some people, so the coefficients grow without end.",
        "일부 사람에서 이 항들이 결과를 완전히 가르므로 계수가 끝없이 커집니다.",
    )
    remedy = Words(
        "Merge levels, leave a term out, or add hospitals{instead}.",
        "수준을 합치거나 항을 빼거나 병원을 더하십시오{instead}.",
    )

    def __init__(self, terms: str, firth: bool = False) -> None:
        way = Words(
            "; or ask for Firth's penalised likelihood (firth: true), which stays finite",
            ". 또는 유한한 추정이 나오는 Firth 벌점 가능도를 쓰십시오(firth: true)",
        )
        super().__init__(terms=terms, instead=way if firth else "")


class NotConverged(NotEstimable):
    what = Words(
        "The estimates did not settle in {rounds} rounds.",
        "{rounds}번의 라운드 안에 추정이 수렴하지 않았습니다.",
    )
    why = Words(
        "The likelihood is nearly flat, or the data hold extreme values.",
        "가능도가 거의 평평하거나 극단값이 있습니다.",
    )
    remedy = Words(
        "Look at the ranges of the terms, leave one out, or raise `rounds`.",
        "항의 범위를 살피고, 하나를 빼거나 `rounds`를 늘리십시오.",
    )


class NothingVaries(NotEstimable):
    what = Words("No term of the model varies ({terms}).", "모형의 어떤 항도 변하지 않습니다({terms}).")
    why = Words("Each has the same value in everyone analysed.", "분석 대상 모두에서 값이 같습니다.")
    remedy = Words("Leave constant columns out of the formula.", "변하지 않는 열을 식에서 빼십시오.")


class NoEstimate(NotEstimable):
    what = Words("No hospital has an estimate to combine.", "합칠 추정값이 있는 병원이 없습니다.")
    why = Words(
        "In each, too few people stand behind it, or its own analysis gave none.",
        "병원마다 근거가 되는 사람이 너무 적거나 그 병원의 분석에서 추정값이 나오지 않았습니다.",
    )
    remedy = Words(
        "Widen the cohort, use coarser groups, or analyse all hospitals as one sum.",
        "코호트를 넓히거나 집단을 더 굵게 나누거나, 모든 병원을 합해서 분석하십시오.",
    )


# ── rules, permissions, life-cycle ───────────────────────────────────────────────────────────────


class Refused(DureError):
    """A disclosure rule said no. `rule` is its name in `dure.guard.rules`; counts and cells are never fields.

    `setting` holds parameters that would pass in place of those given, where the method knows some; `cells`, at the
    hub only, which cells of which array were too small.
    """

    what = Words("Refused by the rule '{rule}'{place}.", "'{rule}' 규칙에 따라 거절되었습니다{place}.")
    why = Words("{reason}", "{reason}")
    remedy = Words("{way_out}", "{way_out}")

    def __init__(self, rule: str, reason: Words, way_out: Words, place: str = "") -> None:
        self.rule, self.way_out = rule, way_out
        self.detail = ""  # cell and count, for the hospital's own audit log only; never part of the text
        self.setting: dict[str, object] = {}
        self.cells: dict[str, object] = {}
        super().__init__(rule=rule, reason=reason, way_out=way_out, place=f" ({place})" if place else "")

    def text(self, language: Language | None = None) -> str:
        said = super().text(language)
        if not self.setting:
            return said
        told = ", ".join(f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in self.setting.items())
        return f"{said} {Words('This would pass:', '이렇게 바꾸면 통과합니다:').say(language)} {told}"

    def would_pass(self, setting: Mapping[str, object]) -> None:
        """Name parameters that would pass in place of those given."""
        self.setting = dict(setting)
        self.fields["setting"] = json.dumps(self.setting, ensure_ascii=False)


class RunWaits(DureError):
    what = Words("The step '{step}' waits for {hospitals}.", "'{step}' 단계가 {hospitals}을(를) 기다립니다.")
    why = Words(
        "It needs '{grant}: true' in the permit of each hospital named, and theirs does not have it.",
        "이름이 나온 병원마다 허가서에 '{grant}: true'가 있어야 하는데 아직 없습니다.",
    )
    remedy = Words(
        "Ask those hospitals to renew their permit with '{grant}', or take the step out of the study.",
        "그 병원들에 '{grant}'을(를) 포함한 허가서를 다시 요청하거나, 연구에서 그 단계를 빼십시오.",
    )

    def __init__(self, step: str, hospitals: Iterable[str], grant: str) -> None:
        self.step, self.hospitals, self.grant = step, sorted(hospitals), grant
        super().__init__(step=step, hospitals=", ".join(self.hospitals), grant=grant)


class QuorumMissed(DureError):
    what = Words("Too few hospitals take part in '{step}'.", "'{step}' 단계에 참여하는 병원이 모자랍니다.")
    why = Words(
        "The study asks for {needed}; now there are: {present}.",
        "연구의 조건은 {needed}인데, 지금은 다음뿐입니다: {present}.",
    )
    remedy = Words(
        "It goes on by itself when enough hospitals are back or have permitted it.",
        "병원들이 돌아오거나 허가하면 저절로 이어집니다.",
    )


class StepSkipped(DureError):
    what = Words("The step '{step}' was not run.", "'{step}' 단계는 실행하지 않았습니다.")
    why = Words(
        "It uses '{used}', which has no result: {reason}", "'{used}' 단계를 쓰는데 그 결과가 없습니다: {reason}"
    )
    remedy = Words(
        "Once '{used}' has a result, run the study again.", "'{used}'에 결과가 생기면 연구를 다시 실행하십시오."
    )


class PermitError(DureError):
    what = Words("The permit of '{hospital}' does not allow this.", "'{hospital}'의 허가서로는 할 수 없는 일입니다.")
    why = Words("{problem}.", "{problem}.")
    remedy = Words(
        "Ask the hospital to review the study as it is now and to sign a new permit.",
        "병원에 지금의 연구를 검토하고 새 허가서에 서명해 달라고 요청하십시오.",
    )


class LifecycleError(DureError):
    what = Words("'{action}' is not possible now.", "지금은 '{action}'을(를) 할 수 없습니다.")
    why = Words(
        "The study is '{state}', and that step is not open from there to a {role}.",
        "연구가 '{state}' 상태이며, 그 상태에서 {role}에게는 열려 있지 않은 일입니다.",
    )
    remedy = Words("Open now: {open}.", "지금 할 수 있는 일: {open}.")


class NotPermitted(DureError):
    what = Words("'{name}' may not do this: {action}.", "'{name}'에게 허용되지 않은 일입니다: {action}.")
    why = Words(
        "The role '{role}' does not have it here, or not for a study of somebody else.",
        "'{role}' 역할에는 이 권한이 없거나, 다른 사람의 연구에는 없습니다.",
    )
    remedy = Words("Ask somebody whose role it is: {roles}.", "권한이 있는 역할에게 요청하십시오: {roles}.")


class DecisionRefused(DureError):
    what = Words("The decision cannot be taken as it is.", "이 결정은 받아들일 수 없습니다.")
    why = Words("{problem}.", "{problem}.")
    remedy = Words(
        "Read what it is about with `dure review show` or `dure release show`, and decide again.",
        "`dure review show`나 `dure release show`로 내용을 읽고 다시 결정하십시오.",
    )


class BoardsDecide(DureError):
    what = Words("'{name}' cannot sign a permit directly.", "'{name}'은(는) 허가서에 바로 서명할 수 없습니다.")
    why = Words(
        "This hospital has accounts, so its boards decide on every study, each for itself.",
        "이 병원에는 계정이 있으므로 연구마다 위원회들이 각자 결정합니다.",
    )
    remedy = Words(
        "Let each board decide: dure review list, then dure review approve.",
        "위원회가 각자 결정하게 하십시오: dure review list, 그다음 dure review approve.",
    )


# ── people and their accounts ────────────────────────────────────────────────────────────────────


class AccountError(DureError):
    """Who somebody is, and whether they may sign in."""


class NotSignedIn(AccountError):
    what = Words("Nobody is signed in here.", "로그인한 사람이 없습니다.")
    why = Words(
        "There are accounts, and no session of one, or it is over (30 minutes without use, 12 hours at most).",
        "계정이 있는데 세션이 없거나 끝났습니다(30분 동안 쓰지 않거나 12시간이 지나면 끝납니다).",
    )
    remedy = Words("Sign in: {command}", "로그인하십시오: {command}")


class SignInRefused(AccountError):
    what = Words("Signing in did not succeed.", "로그인하지 못했습니다.")
    why = Words(
        "The name and the password do not belong to an account that is open here.",
        "이름과 암호가 여기서 열려 있는 계정과 맞지 않습니다.",
    )
    remedy = Words(
        "Check both and try again; whoever keeps the accounts can set a new password (dure people password).",
        "둘 다 확인하고 다시 해 보십시오. 계정 담당자가 새 암호를 정할 수 있습니다(dure people password).",
    )


class TooManyAttempts(AccountError):
    what = Words("Signing in is closed for {minutes} more minutes.", "앞으로 {minutes}분 동안 로그인할 수 없습니다.")
    why = Words(
        "There were too many failed attempts in the last quarter of an hour.",
        "지난 15분 동안 실패한 시도가 너무 많았습니다.",
    )
    remedy = Words(
        "Wait, then try once more; attempts made meanwhile are not counted.",
        "기다렸다가 한 번 더 해 보십시오. 그동안의 시도는 세지 않습니다.",
    )


class WeakPassword(AccountError):
    what = Words("This password is not taken.", "이 암호는 쓸 수 없습니다.")
    why = Words("{problem}.", "{problem}.")
    remedy = Words(
        "Choose at least {least} characters that are not easily guessed; several words are good.",
        "쉽게 짐작할 수 없는 {least}자 이상을 고르십시오. 낱말 여러 개면 좋습니다.",
    )


class AccountConflict(AccountError):
    what = Words("The account '{name}' cannot be changed like this.", "'{name}' 계정을 이렇게 바꿀 수 없습니다.")
    why = Words("{problem}.", "{problem}.")
    remedy = Words("{hint}", "{hint}")


class LogForked(DureError):
    what = Words(
        "The audit log of '{who}' is not the one that was seen before.",
        "'{who}'의 감사 기록이 전에 확인된 기록과 다릅니다.",
    )
    why = Words("{problem}.", "{problem}.")
    remedy = Words(
        "Change nothing in either folder, and let the alliance's auditor compare them: "
        "dure audit verify FOLDER --against OTHER.",
        "어느 폴더도 바꾸지 말고 연합의 감사자가 비교하게 하십시오: dure audit verify 폴더 --against 다른폴더",
    )


# ── hub and members ──────────────────────────────────────────────────────────────────────────────


class MembershipError(DureError):
    """The hub and a member do not come together."""


class TokenRefused(MembershipError):
    what = Words("This invitation cannot be used.", "이 초대장은 쓸 수 없습니다.")
    why = Words("{problem}.", "{problem}.")
    remedy = Words(
        "Ask the alliance's office for a new one (dure hub invite NAME).",
        "연합 사무국에 새 초대장을 요청하십시오(dure hub invite 이름).",
    )


class MessageRefused(MembershipError):
    what = Words("A message was refused.", "메시지가 거절되었습니다.")
    why = Words("{problem}.", "{problem}.")
    remedy = Words("{hint}", "{hint}")


class ProtocolMismatch(MembershipError):
    what = Words("The two sides speak different versions of the protocol.", "양쪽이 쓰는 통신 규약의 판이 다릅니다.")
    why = Words("One speaks {theirs}, the other {ours}.", "한쪽은 {theirs}, 다른 쪽은 {ours}을(를) 씁니다.")
    remedy = Words("Update dure on the older side.", "더 오래된 쪽의 dure를 갱신하십시오.")


class HubUnreachable(MembershipError):
    what = Words("The hub at {address} does not answer.", "{address}의 허브가 응답하지 않습니다.")
    why = Words("{problem}.", "{problem}.")
    remedy = Words(
        "Check that this machine may open outward connections to that address, and that the hub is running.",
        "이 컴퓨터에서 그 주소로 나가는 연결이 허용되는지, 허브가 실행 중인지 확인하십시오.",
    )


class NotAMember(MembershipError):
    what = Words("'{name}' is not a member of this alliance.", "'{name}'은(는) 이 연합의 회원이 아닙니다.")
    why = Words("{problem}.", "{problem}.")
    remedy = Words(
        "Ask the alliance's office; members: dure hub members.",
        "연합 사무국에 문의하십시오. 회원 목록: dure hub members",
    )


class MemberConflict(MembershipError):
    what = Words("'{name}' cannot join like this.", "'{name}'은(는) 이렇게 가입할 수 없습니다.")
    why = Words("{problem}.", "{problem}.")
    remedy = Words(
        "One folder holds one member, and a member joins once; to give it new keys, revoke it and invite it again.",
        "폴더 하나에 회원 하나, 회원은 한 번만 가입합니다. 키를 새로 만들려면 취소한 뒤 다시 초대하십시오.",
    )


class KeyExposed(MembershipError):
    what = Words(
        "The file '{path}' is open to other users of this machine.",
        "'{path}' 파일을 이 컴퓨터의 다른 사용자가 읽을 수 있습니다.",
    )
    why = Words("It holds secrets and has mode {mode}.", "비밀이 들어 있는데 권한이 {mode}입니다.")
    remedy = Words("Run: chmod 600 {path}", "실행하십시오: chmod 600 {path}")


# ── a hospital could not answer ──────────────────────────────────────────────────────────────────


class SiteError(DureError):
    """A hospital could not answer."""


class SiteFailed(SiteError):
    what = Words("{hospital} could not answer the step '{step}'.", "{hospital}에서 '{step}' 단계에 답하지 못했습니다.")
    why = Words("{problem}", "{problem}")
    remedy = Words("{hint}", "{hint}")


class SitePaused(SiteError):
    what = Words("{hospital} has paused its part.", "{hospital}이(가) 참여를 잠시 멈췄습니다.")
    why = Words("Its steward runs nothing for the moment.", "담당자가 지금은 아무것도 실행하지 않습니다.")
    remedy = Words(
        "The run goes on by itself once the hospital resumes.", "병원이 다시 시작하면 실행이 저절로 이어집니다."
    )


class LimitReached(SiteError):
    what = Words("{hospital} stopped the step '{step}'.", "{hospital}에서 '{step}' 단계를 멈췄습니다.")
    why = Words(
        "It needed more {resource} than the hospital allows one run ({limit}).",
        "병원이 한 실행에 허용한 {resource}({limit})을(를) 넘었습니다.",
    )
    remedy = Words(
        "Ask the hospital for a higher limit (`resources` in its site.yaml), or ask for less in the step.",
        "병원에 한도를 올려 달라고 요청하거나(site.yaml의 `resources`) 그 단계에서 덜 요청하십시오.",
    )


class AnswerBroken(SiteError):
    what = Words("An answer from {hospital} is not what was declared.", "{hospital}의 답이 미리 알린 것과 다릅니다.")
    why = Words("{problem}.", "{problem}.")
    remedy = Words(
        "The answer was thrown away. Check that hub and hospital run the same version of the method.",
        "그 답은 버렸습니다. 허브와 병원이 같은 판의 방법을 쓰는지 확인하십시오.",
    )


class SumRefused(SiteError):
    what = Words("{hospital} gives nothing for this sum ({rule}).", "{hospital}이(가) 이 합에 응하지 않습니다({rule}).")
    why = Words("{problem}.", "{problem}.")
    remedy = Words(
        "Nothing of it was opened. Ask that hospital, whose log names the message; a key that has changed is compared "
        "by telephone (dure site peers FOLDER).",
        "아무것도 열리지 않았습니다. 그 병원에 문의하십시오(기록에 메시지가 남아 있습니다). "
        "바뀐 키는 전화로 대조합니다(dure site peers FOLDER).",
    )


class LedgerBroken(SiteError):
    what = Words("The record '{path}' has been changed or cut.", "'{path}' 기록이 바뀌었거나 잘렸습니다.")
    why = Words("{problem}.", "{problem}.")
    remedy = Words(
        "Keep the file as it is, tell the hospital's security officer, and restore it from a backup.",
        "파일을 그대로 보존하고 병원 보안 담당자에게 알린 뒤 백업에서 되살리십시오.",
    )


def all_errors() -> list[type[DureError]]:
    """Every class of the tree, root first, in the order they are written."""
    found: list[type[DureError]] = []

    def visit(cls: type[DureError]) -> None:
        found.append(cls)
        for child in cls.__subclasses__():
            if child.__module__ == __name__:
                visit(child)

    visit(DureError)
    return found
