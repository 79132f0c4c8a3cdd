"""The commands of `dure`; each is a few lines that call the room where the work is done."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.text import Text

from dure.cli.screen import Narrator, console, errors, show_error, show_remark, show_table
from dure.errors import DureError
from dure.language import Words, reader_language

INTERRUPTED = 130


def _say(en: str, ko: str) -> str:
    return Words(en, ko).say()


app = typer.Typer(
    name="dure",
    help=_say(
        "dure 두레: hospitals do research together; each keeps its own patients.",
        "두레: 병원들이 함께 연구하되, 환자는 각 병원에 남습니다.",
    ),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
study_app = typer.Typer(
    help=_say("Read and check study documents.", "연구 문서를 읽고 검사합니다."), no_args_is_help=True
)
site_app = typer.Typer(
    help=_say("A hospital's own work: standardise, quality, audit.", "병원의 일: 표준화, 품질, 감사."),
    no_args_is_help=True,
)
hub_app = typer.Typer(help=_say("The alliance's hub.", "연합의 허브."), no_args_is_help=True)
app.add_typer(study_app, name="study")
app.add_typer(site_app, name="site")
app.add_typer(hub_app, name="hub")


class Unanswered(Exception):
    """Everything ran, but something could not be answered and was said: exit code 3."""


def run(arguments: list[str]) -> int:
    """Run the command line and return its exit code (see `dure.cli.main`)."""
    debug = "--debug" in arguments
    try:
        code = app(args=[argument for argument in arguments if argument != "--debug"], standalone_mode=False)
        if code == INTERRUPTED:  # typer turns Ctrl-C into this exit code, without a word
            raise KeyboardInterrupt
        return int(code or 0)
    except DureError as error:
        if debug:
            raise
        show_error(error)
        return 1
    except Unanswered:
        return 3
    except typer.Exit as stop:
        return stop.exit_code
    except (KeyboardInterrupt, typer.Abort):
        errors.print(
            _say(
                "Stopped. Nothing half-written is left; run it again to go on.",
                "멈췄습니다. 반쯤 쓰인 것은 없습니다. 다시 실행하면 이어집니다.",
            )
        )
        return INTERRUPTED
    except Exception as error:
        if debug:
            raise
        if hasattr(error, "format_message"):  # click's own usage errors, whose class typer does not export
            errors.print(Text(_usage(error)))
            return 2
        show_error(DureError())
        errors.print(Text(type(error).__name__, style="dim"))
        return 1


def _usage(error: Any) -> str:
    return f"{error.format_message()}\n{_say('Try: dure --help', '도움말: dure --help')}"


LanguageOption = Annotated[
    Literal["en", "ko"], typer.Option("--language", help=_say("language of what is shown", "표시 언어"))
]


@app.callback()
def everything(
    language: LanguageOption = reader_language(),
    debug: bool = typer.Option(False, "--debug", help=_say("show tracebacks", "추적 정보를 보임")),
) -> None:
    """Options that every command takes; `main` has already read them."""


@app.command(
    help=_say(
        "Four real hospitals answer one question on this machine.", "실제 네 병원이 이 컴퓨터에서 한 질문에 답합니다."
    )
)
def demo(
    folder: Annotated[Path, typer.Option(help=_say("where everything is written", "모든 것을 쓰는 폴더"))] = Path(
        "demo"
    ),
) -> None:
    from dure.demo.play import play
    from dure.report.terminal import summary

    began = time.perf_counter()
    with Narrator() as narrator:
        told, _ = play(folder, narrator)
    console.print()
    console.print(summary(told, reader_language()))
    console.print()
    report, result = folder / "report.html", folder / "result.json"
    console.print(
        Text(_say(f"Report: {report}   Result: {result}", f"보고서: {report}   결과: {result}"), style="bold")
    )
    console.print(_say("How to go on:", "이어서 할 일:"))
    for words in told.next_steps:
        console.print(Text(f"  {words.say()}"))
    seconds = time.perf_counter() - began
    console.print(Text(_say(f"{seconds:.0f} seconds.", f"{seconds:.0f}초 걸렸습니다."), style="dim"))


@app.command(name="try", help=_say("Play the alliance on a table of your own.", "자신의 표로 연합을 해 봅니다."))
def try_table(
    table: Annotated[
        Path, typer.Argument(help=_say("a CSV file with one row per person", "한 사람이 한 행인 CSV 파일"))
    ],
    hospital: Annotated[str, typer.Option(help=_say("column that names the hospital", "병원 이름 열"))],
    outcome: Annotated[str, typer.Option(help=_say("column to explain", "설명할 결과 열"))],
    time_column: Annotated[
        str | None,
        typer.Option(
            "--time", help=_say("follow-up time: survival instead of a model", "추적 시간: 모형 대신 생존분석")
        ),
    ] = None,
    group: Annotated[
        str | None, typer.Option(help=_say("with --time: compare its levels", "--time과 함께: 비교할 집단"))
    ] = None,
    terms: Annotated[
        str, typer.Option(help=_say("only these columns, separated by commas", "이 열들만, 쉼표로 나눔"))
    ] = "",
    event: Annotated[
        str | None, typer.Option(help=_say("the outcome's value that is the event", "사건으로 볼 결과 값"))
    ] = None,
    encoding: Annotated[str, typer.Option(help=_say("encoding of the file", "파일 인코딩"))] = "utf-8",
    rules: Annotated[
        Literal["default", "off"],
        typer.Option(help=_say("disclosure rules; off only for your own data", "공개 규칙. off는 자기 자료에만")),
    ] = "default",
) -> None:
    from dure.client.own_table import own_table, play
    from dure.client.table_file import read_table
    from dure.guard.rules import DEFAULT, OFF

    frame = read_table(table, encoding)
    chosen = [name.strip() for name in terms.split(",") if name.strip()]
    prepared = own_table(frame, hospital, outcome, time_column, group, chosen, event)
    console.print(Text(_say("Hospitals: ", "병원: ") + ", ".join(prepared.sites), style="bold"))
    for words in prepared.notes:
        console.print(Text(f"  {words.say()}"))
    for words in prepared.remarks:
        show_remark(words)
    with Narrator() as narrator:
        outcomes, run_ = play(prepared, OFF if rules == "off" else DEFAULT, progress=_teller(narrator))
    unanswered = bool(prepared.remarks)
    for name, error in run_.dropped.items():
        show_remark(Words(f"{name}: {error.text('en')}", f"{name}: {error.text('ko')}"))
        unanswered = True
    failed: list[DureError] = []
    for step, outcome_ in outcomes.items():
        fold = outcome_.folds[None]
        if fold.released is None:
            if fold.error is not None and outcome_.status != "skipped":
                failed.append(fold.error)
            continue
        for name, released in fold.released.tables.items():
            show_table(
                f"{run_.plan.method(run_.plan.step(step)).title.say()} · {name}", released.frame, released.withheld
            )
        for note in fold.released.notes:
            show_remark(note)
            unanswered = True
    sent = [item for outcome_ in outcomes.values() for item in outcome_.left]
    for site in prepared.sites:
        mine = [item for item in sent if item.hospital == site]
        console.print(
            Text(
                _say(
                    f"Left {site}: {len(mine)} arrays, {sum(i.bytes for i in mine):,} bytes; no row.",
                    f"{site}에서 나간 것: 배열 {len(mine)}개, {sum(i.bytes for i in mine):,}바이트. 행은 없음.",
                ),
                style="dim",
            )
        )
    for error in {error.text(): error for error in failed}.values():
        show_error(error)
    if failed and not terms:
        console.print(_say("Choose columns with --terms a,b,c.", "--terms a,b,c로 열을 고를 수 있습니다."))
    if failed and not any(fold.released for outcome_ in outcomes.values() for fold in outcome_.folds.values()):
        raise typer.Exit(1)
    if failed or unanswered:
        raise Unanswered


@app.command(
    help=_say(
        "List the methods, the parameters of one, or the limits of the rules (`dure methods rules`).",
        "방법 목록, 한 방법의 매개변수, 또는 규칙의 한도(`dure methods rules`).",
    )
)
def methods(name: Annotated[str | None, typer.Argument(help=_say("a method", "방법 이름"))] = None) -> None:
    from dure.guard.rules import Limits
    from dure.study.method import find_method, installed_methods

    known = installed_methods()
    if name == "rules":
        _parameters(Limits)
        return
    for method in [find_method(name, known)] if name else known.values():
        console.print(Text.assemble((method.name, "bold green"), f"  {method.title.say()}: {method.about.say()}"))
        _parameters(method.parameters)


@study_app.command(
    help=_say(
        "Read a study document; its hash, or what is wrong and on which line.",
        "연구 문서를 읽고 해시, 또는 몇 행이 왜 틀렸는지 보입니다.",
    )
)
def check(document: Annotated[Path, typer.Argument(help=_say("a study (YAML)", "연구(YAML)"))]) -> None:
    from dure.federation.plan import plan_of
    from dure.study.method import installed_methods
    from dure.study.spec import read_study

    study = read_study(document)
    plan_of(study, installed_methods()).check(("A", "B", "C"))
    console.print(Text.assemble((study.title.words().say(), "bold"), f"\n{study.hash}\n"))
    console.print(", ".join(f"{step.name} ({step.method})" for step in study.steps))


@study_app.command(
    help=_say(
        "What a study will send from each hospital, and which permissions it needs.",
        "연구가 병원마다 내보낼 것과 필요한 허가.",
    )
)
def preview(
    document: Annotated[Path, typer.Argument(help=_say("a study (YAML)", "연구(YAML)"))],
    hospitals: Annotated[int, typer.Option(min=1, help=_say("how many hospitals take part", "참여 병원 수"))] = 4,
) -> None:
    import polars as pl

    from dure.client.preview import preview as look
    from dure.study.method import installed_methods
    from dure.study.spec import read_study

    sent, needed = look(read_study(document), installed_methods(), tuple(f"H{i + 1}" for i in range(hospitals)))
    rows = [
        {
            "step": s.step,
            "method": s.method,
            "array": s.array,
            "shape": "×".join(map(str, s.shape)) or "1",
            "kind": s.kind,
            "per hospital": "✓" if s.per_hospital else "",
        }
        for s in sent
    ]
    show_table(
        _say(f"First round of each step, {hospitals} hospitals", f"단계마다 첫 라운드, 병원 {hospitals}곳"),
        pl.DataFrame(rows),
        {},
    )
    for grant, steps in needed.items():
        console.print(Text(f"{grant}: {', '.join(steps)}"))


@site_app.command(
    help=_say(
        "Turn a hospital's export into its OMOP database by a mapping plan.",
        "매핑 계획에 따라 병원 내보내기를 OMOP 데이터베이스로 만듭니다.",
    )
)
def standardise(
    plan: Annotated[Path, typer.Argument(help=_say("a mapping plan (YAML)", "매핑 계획(YAML)"))],
    exports: Annotated[Path, typer.Option(help=_say("folder of the export", "내보내기 폴더"))],
    database: Annotated[Path, typer.Option(help=_say("database to write", "만들 데이터베이스"))],
    concepts: Annotated[Path | None, typer.Option(help=_say("CSV of local concepts", "자체 개념 CSV"))] = None,
) -> None:
    from dure.standardise.load import standardise as load

    report = load(plan, exports, database, concepts=concepts)
    console.print(
        Text(
            _say(f"{report.rows_read} rows read → {database}", f"{report.rows_read}행을 읽음 → {database}"),
            style="bold green",
        )
    )
    for table, rows in report.rows.items():
        console.print(Text(f"  {table}: {rows:,}"))
    missing = ", ".join(f"{name} {count:,}" for name, count in report.missing.items() if count)
    if missing:
        console.print(Text(_say(f"  missing: {missing}", f"  결측: {missing}")))
    for count, words in (
        (
            sum(report.unreadable.values()),
            Words("values could not be read and are missing", "개 값을 읽지 못해 결측으로 둠"),
        ),
        (report.sexes_unmapped, Words("people have a sex that OMOP does not know", "명의 성별이 OMOP에 없음")),
        (
            report.contradictions,
            Words(
                "people whose rows contradict each other (sex or year of birth)",
                "명의 행이 서로 어긋남(성별 또는 출생 연도)",
            ),
        ),
    ):
        if count:
            show_remark(Words(f"{count:,} {words.en}", f"{count:,}{words.ko}"))


@site_app.command(
    help=_say("Check a standardised database against its plan.", "표준화한 데이터베이스를 계획에 비추어 검사합니다.")
)
def quality(
    plan: Path, database: Annotated[Path, typer.Option(help=_say("the hospital's database", "병원 데이터베이스"))]
) -> None:
    import polars as pl

    from dure.standardise.mapping import read_plan
    from dure.standardise.quality import quality as look

    found = look(database, read_plan(plan))
    rows = [{name: _plain(getattr(row, name)) for name in row.__dataclass_fields__} for row in found]
    show_table(_say("Quality", "품질"), pl.DataFrame(rows), {})
    if any(row.status == "fail" for row in found):
        raise Unanswered


@site_app.command(
    help=_say("Verify a hospital's audit log and count its entries.", "병원 감사 기록을 검증하고 항목을 셉니다.")
)
def audit(folder: Annotated[Path, typer.Argument(help=_say("the hospital's folder", "병원 폴더"))]) -> None:
    from dure.site.settings import Site

    site = Site(folder)
    console.print(
        Text(
            _say(
                f"{site.hospital}: {site.audit.verify()} entries, unbroken",
                f"{site.hospital}: 항목 {site.audit.verify()}개, 끊김 없음",
            ),
            style="green",
        )
    )


@hub_app.command(help=_say("Studies at the hub and where they stand.", "허브의 연구와 상태."))
def status(store: Annotated[Path, typer.Option(help=_say("the hub's file", "허브의 파일"))]) -> int:
    from dure.hub.entry import main as hub

    return hub(["status", "--store", str(store)])


def _teller(narrator: Narrator) -> Any:
    def tell(event: str, details: Mapping[str, Any]) -> None:
        if event == "round":
            narrator.working(
                Words(
                    f"{details['step']}: round {details['round']}", f"{details['step']}: {details['round']}번째 라운드"
                )
            )

    return tell


def _parameters(model: Any) -> None:
    for parameter, field in model.model_fields.items():
        default = _say("required", "필수") if field.is_required() else f"= {field.default!r}"
        console.print(Text.assemble("    ", (parameter, "bold"), f"  {default}  {_described(field)}"))


def _described(field: Any) -> str:
    """A parameter's description; methods give the Korean one beside it (`json_schema_extra`)."""
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    description = str(field.description or "–")
    return Words(description, str(extra.get("ko", description))).say()


def _plain(value: object) -> Any:
    if isinstance(value, Words):
        return value.say()
    return value if isinstance(value, int | float | str) or value is None else json.dumps(value, default=str)
