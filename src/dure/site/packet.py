"""What a review board reads of a study, as one document in Korean or English: why, of whom, and what will leave."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import combinations, product

from dure.federation.preview import Sent, preview
from dure.guard.rules import RULES, Limits
from dure.language import Language, Words, visible
from dure.study.cohort import Event, FollowUp
from dure.study.differences import differences
from dure.study.method import Methods, find_method, source_hash
from dure.study.permit import GRANTS, Grant
from dure.study.spec import Application, Scope, Study
from dure.study.wording import cohort_words, variable_words

NOT_STATED = Words("*Not stated in the study. Ask for it.*", "*연구에 적혀 있지 않습니다. 보완을 요청하십시오.*")
APPLICATION: dict[str, Words] = {
    "purpose": Words("Purpose", "목적"),
    "benefit": Words("Expected benefit", "기대 효과"),
    "legal_basis": Words("Legal basis", "법적 근거"),
    "pseudonymisation": Words("Pseudonymisation", "가명처리"),
    "retention": Words("Retention", "보유 기간"),
    "recipients": Words("Recipients", "제공받는 자"),
    "risks": Words("Risks", "위험"),
}
"""Field of `dure.study.spec.Application` → heading."""
ALWAYS: dict[str, Words] = {
    "legal_basis": Words(
        "In Korea pseudonymised data may be processed without consent for statistics, scientific research and "
        "archiving "
        "in the public interest (Personal Information Protection Act, article 28-2); putting together data of "
        "several "
        "controllers would need an expert agency (article 28-3) and does not take place here: no row leaves a "
        "hospital.",
        "가명정보는 통계작성, 과학적 연구, 공익적 기록보존을 위하여 정보주체의 동의 없이 처리할 수 "
        "있습니다(개인정보 보호법 제28조의2). "
        "서로 다른 처리자의 가명정보 결합(제28조의3)은 일어나지 않습니다. 행 자료는 병원 밖으로 나가지 않습니다.",
    ),
    "pseudonymisation": Words(
        "The software reads the hospital's OMOP database, whose person numbers replace hospital numbers. Names, "
        "resident "
        "registration numbers and notes are not read by this study. Rows are held in memory while a question is "
        "answered.",
        "소프트웨어는 병원의 OMOP 데이터베이스를 읽으며, 그 안의 환자번호는 병원 등록번호를 대체한 것입니다. "
        "이 연구는 이름, 주민등록번호, 의무기록 본문을 읽지 않습니다. 행은 질문에 답하는 동안만 메모리에 있습니다.",
    ),
    "recipients": Words(
        "The hub's process sees opened totals of all hospitals, never this hospital's part, and its "
        "administrator could "
        "read those totals. Researchers and companies see released results only.",
        "허브 프로세스는 모든 병원의 합계만 보고 이 병원의 몫은 보지 못하며, 허브 관리자는 그 합계를 읽을 수 "
        "있습니다. "
        "연구자와 기업은 공개된 결과만 봅니다.",
    ),
    "retention": Words(
        "What left stays listed in the hospital (`dure site egress`). The hub keeps the run's totals and the "
        "released "
        "results; nothing of single patients is kept outside the hospital.",
        "나간 수치는 병원의 목록에 남습니다(`dure site egress`). 허브는 실행의 합계와 공개된 결과를 보관하며, "
        "환자 개인의 자료는 병원 밖에 보관되지 않습니다.",
    ),
    "risks": Words(
        "Totals are exact and can tell something of people who are known to be in them; with three hospitals "
        "each knows "
        "its own part. What is not protected is listed first in the threat model (docs/threat-model.md).",
        "합계는 정확하므로 그 안에 있다고 알려진 사람에 대해 무언가를 말할 수 있고, 병원이 셋이면 각 병원은 자기 "
        "몫을 압니다. "
        "보호되지 않는 것은 위협 모형(docs/threat-model.md)의 첫머리에 있습니다.",
    ),
}
"""What holds for every study, whatever its proposer wrote."""
KINDS: dict[str, Words] = {
    "count": Words("numbers of people", "사람 수"),
    "moment": Words(
        "sums over people (of values, squares, products, gradients)", "사람들에 대한 합(값, 제곱, 곱, 기울기)"
    ),
    "weights": Words("weights of a learned model", "학습된 모형의 가중치"),
}
EVENTS = ("present", "absent", "number", "category", "codes", "happened", "days_until")
"""Sources of a variable that are recorded events, or follow-up to one."""
NEAR = Words(
    "**Look at these together.** They are made of the same records with other limits. If only a few people differ "
    "between two of them, two tables or models that are released, one by each, together tell what these people have. "
    "No rule of the software finds that.",
    "**함께 살펴보십시오.** 같은 기록에서 조건만 다르게 만든 변수들입니다. 둘 사이에 몇 사람만 다르면, 하나씩 써서 "
    "공개된 두 표나 모형을 비교해 그 사람들의 값을 알 수 있습니다. 소프트웨어의 어떤 규칙도 이를 찾아내지 못합니다.",
)
WITHHELD = Words("which of these numbers were withheld", "위 수치 가운데 감춘 것의 표시")
SCOPES: dict[Scope, Words] = {
    "all": Words("one sum over all hospitals", "모든 병원의 합 하나"),
    "each": Words(
        "computed inside each hospital; only its released answer leaves", "병원마다 안에서 계산하고 공개용 답만 나감"
    ),
    "all_but_one": Words("repeated without each hospital in turn", "병원을 하나씩 빼고 되풀이"),
}
RECORD: tuple[Words, ...] = (
    Words("Purpose of processing pseudonymised data", "가명정보 처리의 목적"),
    Words("Items of personal data pseudonymised", "가명처리한 개인정보의 항목"),
    Words("Use of the pseudonymised data", "가명정보의 이용내역"),
    Words("Recipients where provided to third parties", "제3자 제공 시 제공받는 자"),
    Words("Period of processing", "가명정보의 처리 기간"),
)
"""Enforcement Decree of the Personal Information Protection Act, article 29-5: what a processing record names."""


def packet(
    study: Study,
    methods: Methods,
    limits: Limits,
    *,
    hospital: str,
    proposer: str,
    hospitals: int = 4,
    before: Study | None = None,
    language: Language = "en",
) -> str:
    """The packet as Markdown. `hospitals` is how many are assumed where an array's shape depends on it.

    Raises DureError where a step cannot be asked.
    """
    names = tuple(f"H{number}" for number in range(1, max(hospitals, 1) + 1))
    sent, needed = preview(study, methods, names)
    sections = (
        _head(study, hospital, proposer, language),
        _versions(study, before, language),
        _application(study.application, language),
        _data(study, language),
        _leaving(study, methods, sent, hospitals, language),
        _permissions(needed, language),
        _rules(limits, language),
        _record(study, needed, language),
    )
    return "\n\n".join("\n".join(section) for section in sections if section) + "\n"


def _head(study: Study, hospital: str, proposer: str, language: Language) -> list[str]:
    facts = {
        Words("Study", "연구"): f"`{study.hash}`",
        Words("Proposed by", "제안자"): _one_line(proposer) or "–",
        Words("For", "대상 병원"): _one_line(hospital),
    }
    title, question = _one_line(study.title.words().say(language)), _one_line(study.question.words().say(language))
    lines = [f"# {title}", "", question, ""]
    lines += [f"- {name.say(language)}: {value}" for name, value in facts.items()]
    return lines + [f"- {_one_line(document.words().say(language))}" for document in study.documents]


def _versions(study: Study, before: Study | None, language: Language) -> list[str]:
    if study.replaces is None:
        return []
    title = Words("What changed since the last version", "지난 판에서 바뀐 것").say(language)
    void = Words(
        f"It replaces `{study.replaces[:19]}…`; approvals of that version no longer count.",
        f"`{study.replaces[:19]}…` 판을 대신하며, 그 판의 승인은 더 이상 유효하지 않습니다.",
    ).say(language)
    if before is None:
        unknown = Words("The earlier version is not in this inbox.", "이전 판이 이 수신함에 없습니다.")
        return [f"## {title}", "", void, "", unknown.say(language)]
    changed = differences(before, study)
    nothing = [Words("Nothing of what the documents say.", "문서의 내용은 바뀌지 않았습니다.")]
    return [f"## {title}", "", void, "", *(f"- {_one_line(words.say(language))}" for words in changed or nothing)]


def _application(application: Application, language: Language) -> list[str]:
    lines: list[str] = []
    for field, heading in APPLICATION.items():
        said = getattr(application, field)
        told = _quoted(said.words().say(language)) if said else [NOT_STATED.say(language)]
        lines += [f"## {heading.say(language)}", "", *told, ""]
        if field in ALWAYS:
            lines += [ALWAYS[field].say(language), ""]
    return lines[:-1]


def _data(study: Study, language: Language) -> list[str]:
    lines = [
        f"## {Words('Who is asked about', '대상자').say(language)}",
        "",
        f"**{_one_line(study.cohort.name.words().say(language))}**",
    ]
    lines += [
        "",
        *(
            f"{place}. {_one_line(words.say(language))}"
            for place, words in enumerate(cohort_words(study.cohort), start=1)
        ),
    ]
    lines += ["", f"## {Words('Data items', '자료 항목').say(language)}", ""]
    rows = [
        (_name(name), variable.label.words().say(language), variable_words(variable).say(language))
        for name, variable in study.variables.items()
    ]
    head = (Words("Name", "이름"), Words("Meaning", "뜻"), Words("Source", "출처"))
    lines += _table([words.say(language) for words in head], rows)
    told = [f"- {first}, {second}" for first, second in (map(_name, pair) for pair in near(study))]
    return [*lines, "", NEAR.say(language), "", *told] if told else lines


def near(study: Study) -> list[tuple[str, str]]:
    """Pairs of variables made of the same records in another window, range or unit: one of each event is enough."""
    made = {
        name: [part for source in EVENTS if (part := getattr(variable, source)) is not None]
        for name, variable in study.variables.items()
    }

    def alike(one: Event | FollowUp, other: Event | FollowUp) -> bool:
        first, second = (part.event if isinstance(part, FollowUp) else part for part in (one, other))
        same = first.domain == second.domain and set(first.concepts) & set(second.concepts)
        return bool(same) and one != other

    return [
        (first, second)
        for first, second in combinations(study.variables, 2)
        if any(alike(one, other) for one, other in product(made[first], made[second]))
    ]


def _leaving(study: Study, methods: Methods, sent: tuple[Sent, ...], hospitals: int, language: Language) -> list[str]:
    intro = Words(
        "No row leaves. Every step sends arrays of numbers, declared beforehand; the software sends nothing "
        "else. They are "
        "masked, so that only the sum of all hospitals can be opened, unless the last column says otherwise.",
        "행은 나가지 않습니다. 단계마다 미리 알린 수 배열만 나가고 그 밖에는 아무것도 나가지 않습니다. "
        "마지막 열에 따로 적힌 것이 아니면 가려져서 모든 병원의 합만 열 수 있습니다.",
    )
    lines = [
        f"## {Words('What will leave the hospital', '병원 밖으로 나갈 것').say(language)}",
        "",
        intro.say(language),
        "",
    ]
    for step in study.steps:
        method = find_method(step.method, methods)
        what = f"{method.title.say(language)}: {method.about.say(language)} ({SCOPES[step.scope].say(language)})"
        kinds = dict.fromkeys(array.kind for array in sent if array.step == step.name)
        told = ", ".join(KINDS[kind].say(language) for kind in kinds)
        shown = (
            Words("is released", "공개됨") if step.release else Words("only serves later steps", "다음 단계에만 쓰임")
        )
        lines.append(
            f"- **`{step.name}`** — {what} {Words('Sends', '내보냄').say(language)}: {told}. {shown.say(language)}."
        )
    lines += [
        "",
        Words(
            f"Arrays of each step's first round, for {hospitals} hospitals (later rounds send arrays of the same "
            f"kinds):",
            f"단계마다 첫 라운드의 배열, 병원 {hospitals}곳일 때(이후 라운드도 같은 종류의 배열을 보냅니다):",
        ).say(language),
        "",
    ]
    alone = Words("this hospital alone", "이 병원만의 수치").say(language)
    rows = [
        (
            _name(array.step),
            _name(array.array),
            "×".join(map(str, array.shape)) or "1",
            (WITHHELD if array.array.endswith(".withheld") else KINDS[array.kind]).say(language),
            alone if array.per_hospital else "",
        )
        for array in sent
    ]
    head = (
        Words("Step", "단계"),
        Words("Array", "배열"),
        Words("Shape", "모양"),
        Words("What it is", "내용"),
        Words("Shows", "드러냄"),
    )
    lines += _table([words.say(language) for words in head], rows)
    sources = {step.method: source_hash(find_method(step.method, methods)) for step in study.steps}
    bound = Words(
        "The permit binds these sources; changed code is not run:",
        "허가서는 다음 소스에 묶이며, 바뀐 코드는 실행되지 않습니다:",
    )
    return [*lines, "", bound.say(language), "", *(f"- {name}: `{digest[:23]}…`" for name, digest in sources.items())]


def _permissions(needed: Mapping[Grant, list[str]], language: Language) -> list[str]:
    lines = [f"## {Words('Permissions that steps ask for', '단계가 요청하는 권한').say(language)}", ""]
    if not needed:
        return [*lines, Words("None beyond sums over all hospitals.", "모든 병원의 합 외에는 없습니다.").say(language)]
    return lines + [
        f"- `{grant}`: {GRANTS[grant].say(language)} — {', '.join(map(_name, steps))}"
        for grant, steps in needed.items()
    ]


def _rules(limits: Limits, language: Language) -> list[str]:
    lines = [f"## {Words('Rules in force here', '이 병원에서 적용되는 규칙').say(language)}", ""]
    lines += [f"- `{rule.name}`: {rule.says.say(language)}" for rule in RULES.values()]
    given = ", ".join(f"{name} {value:g}" for name, value in limits.model_dump().items())
    return [*lines, "", f"{Words('Limits', '한도').say(language)}: {given}."]


def _record(study: Study, needed: Mapping[Grant, list[str]], language: Language) -> list[str]:
    application = study.application
    purpose = application.purpose.words() if application.purpose else study.question.words()
    items = ", ".join(variable.label.words().say(language) for variable in study.variables.values())
    use = ", ".join(dict.fromkeys(step.method for step in study.steps))
    nobody = Words("Nobody: no pseudonymised data are provided", "없음: 가명정보를 제공하지 않음").say(language)
    alone = Words("released numbers of this hospital alone", "이 병원만의 공개 수치").say(language)
    period = application.retention.words() if application.retention else NOT_STATED
    values = (
        purpose.say(language),
        items,
        f"{use} (`{study.hash[:19]}…`)",
        f"{nobody}{'; ' + alone if 'per_hospital' in needed else ''}",
        period.say(language),
    )
    title = Words("Record of processing pseudonymised data", "가명정보 처리 기록").say(language)
    source = Words(
        "Draft for the hospital's own record (Personal Information Protection Act, article 28-4; Enforcement Decree, "
        "article 29-5).",
        "병원 자체 기록을 위한 초안(개인정보 보호법 제28조의4, 같은 법 시행령 제29조의5).",
    ).say(language)
    head = [Words("Item", "항목").say(language), Words("Entry", "내용").say(language)]
    return [f"## {title}", "", source, "", *_table(head, [(w.say(language), v) for w, v in zip(RECORD, values)])]


def _seen(text: str) -> str:
    """Others' words as a reader sees them: on one line, nothing hidden or turned around, and no HTML."""
    return _no_tags(" ".join(visible(text).split()))


def _no_tags(text: str) -> str:
    return re.sub("<(?=[A-Za-z/!?])", "&lt;", text)


def _one_line(text: str) -> str:
    """A proposer's words, in which no line can look like a heading or another part of this document."""
    return re.sub("^(?=[#>*+=|`~-])", r"\\", _seen(text))


def _name(text: str) -> str:
    return "`" + " ".join(visible(text).split()).replace("`", "'") + "`"


def _quoted(text: str) -> list[str]:
    """A proposer's paragraphs, marked as theirs."""
    return [f"> {_no_tags(line)}".rstrip() for line in visible(text).splitlines()]


def _table(head: list[str], rows: Iterable[tuple[str, ...]]) -> list[str]:
    lines = [f"| {' | '.join(head)} |", f"| {' | '.join('---' for _ in head)} |"]
    return lines + [f"| {' | '.join(_seen(cell).replace('|', '∣') for cell in row)} |" for row in rows]
