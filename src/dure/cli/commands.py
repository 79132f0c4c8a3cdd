"""The commands of `dure`; each is a few lines that call the room where the work is done."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.text import Text

from dure.cli.audit import audit_app
from dure.cli.egress import site_app
from dure.cli.office import hub_app
from dure.cli.people import add_to as add_people
from dure.cli.release import release_app
from dure.cli.research import study_app
from dure.cli.review import STATES as ANSWERS
from dure.cli.review import review_app
from dure.cli.screen import Narrator, Unanswered, console, errors, say, show_error, show_remark, show_table
from dure.errors import DureError
from dure.language import Words, reader_language

INTERRUPTED = 130


app = typer.Typer(
    name="dure",
    help=say(
        "dure 두레: hospitals do research together; each keeps its own patients.",
        "두레: 병원들이 함께 연구하되, 환자는 각 병원에 남습니다.",
    ),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(study_app, name="study")
app.add_typer(site_app, name="site")
app.add_typer(hub_app, name="hub")
app.add_typer(review_app, name="review")
app.add_typer(release_app, name="release")
add_people(app)
app.add_typer(audit_app, name="audit")


def run(arguments: list[str]) -> int:
    """Run the command line and return its exit code (see `dure.cli.main`)."""
    debug = "--debug" in arguments
    try:
        with _ctrl_c_told():
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
            say(
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


@contextmanager
def _ctrl_c_told() -> Iterator[None]:
    """Once Ctrl-C was pressed the command was stopped, whatever became of the interrupt on its way up.

    A library may make another error of it, as pydantic-core does where it calls back while it serialises; and that
    error may be taken for a hospital's, of which a study goes on without it.
    """
    usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # a shell lets some programs ignore Ctrl-C
    if not usual or threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed = False

    def hear(number: int, frame: Any) -> None:
        nonlocal pressed
        pressed = True
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGINT, hear)
    try:
        yield
    except Exception as error:
        if not pressed:
            raise
        raise KeyboardInterrupt from error
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if pressed:
        raise KeyboardInterrupt


def _usage(error: Any) -> str:
    return f"{error.format_message()}\n{say('Try: dure --help', '도움말: dure --help')}"


LanguageOption = Annotated[
    Literal["en", "ko"], typer.Option("--language", help=say("language of what is shown", "표시 언어"))
]


@app.callback()
def everything(
    language: LanguageOption = reader_language(),
    debug: bool = typer.Option(False, "--debug", help=say("show tracebacks", "추적 정보를 보임")),
) -> None:
    """Options that every command takes; `main` has already read them."""


@app.command(
    help=say(
        "Four real hospitals answer one question on this machine.", "실제 네 병원이 이 컴퓨터에서 한 질문에 답합니다."
    )
)
def demo(
    folder: Annotated[Path, typer.Option(help=say("where everything is written", "모든 것을 쓰는 폴더"))] = Path(
        "demo"
    ),
    engine: Annotated[
        Literal["local", "flare"],
        typer.Option(help=say("flare: five services with certificates", "flare: 인증서를 가진 서비스 다섯 개")),
    ] = "local",
    scheme: Annotated[Literal["tcp", "grpc"], typer.Option(help=say("with flare", "flare일 때"))] = "tcp",
    governed: Annotated[
        bool,
        typer.Option(
            "--governed",
            help=say(
                "seven hospitals, a company and an office, from draft to released results",
                "병원 일곱 곳과 기업, 사무국이 초안에서 공개까지",
            ),
        ),
    ] = False,
) -> None:
    if governed:
        return _governed(folder)
    from dure.demo.play import play
    from dure.report.terminal import summary

    began = time.perf_counter()
    with Narrator() as narrator:
        told, _ = play(folder, narrator, engine, scheme)
    console.print()
    console.print(summary(told, reader_language()))
    console.print()
    report, result = folder / "report.html", folder / "result.json"
    console.print(Text(say(f"Report: {report}   Result: {result}", f"보고서: {report}   결과: {result}"), style="bold"))
    console.print(say("How to go on:", "이어서 할 일:"))
    for words in told.next_steps:
        console.print(Text(f"  {words.say()}"))
    seconds = time.perf_counter() - began
    console.print(Text(say(f"{seconds:.0f} seconds.", f"{seconds:.0f}초 걸렸습니다."), style="dim"))
    return None


def _governed(folder: Path) -> None:
    """What each hospital did and which numbers left; the page has the rest."""
    import polars as pl

    from dure.demo.governed import play

    began = time.perf_counter()
    with Narrator() as narrator:
        _, result = play(folder, narrator)
    rows = [
        {
            "hospital": name,
            "status": ANSWERS[kind].say(),
            "arrays": len(result["left"][name]),
            "numbers": sum(one["numbers"] for one in result["left"][name]),
            "in the clear": sum(one["numbers"] for one in result["left"][name] if not one["masked"]),
        }
        for name, kind in result["answers"].items()
    ]
    console.print()
    show_table(say("What left each hospital", "병원마다 나간 것"), pl.DataFrame(rows), {})
    report, written = folder / "report.html", folder / "result.json"
    console.print(
        Text(say(f"Report: {report}   Result: {written}", f"보고서: {report}   결과: {written}"), style="bold")
    )
    console.print(say("To look around (passwords: people.tsv):", "둘러보기(암호: people.tsv):"))
    for line in (
        f"dure sign-in {folder}/hub auditor; dure audit verify {folder}/hub",
        f"dure sign-in {folder}/seven/hungary_south irb; dure site egress {folder}/seven/hungary_south --numbers",
        f"dure review list {folder}/seven/hungary_south",
    ):
        console.print(Text(f"  {line}"))
    seconds = time.perf_counter() - began
    console.print(Text(say(f"{seconds:.0f} seconds.", f"{seconds:.0f}초 걸렸습니다."), style="dim"))


@app.command(name="try", help=say("Play the alliance on a table of your own.", "자신의 표로 연합을 해 봅니다."))
def try_table(
    table: Annotated[
        Path, typer.Argument(help=say("a CSV file with one row per person", "한 사람이 한 행인 CSV 파일"))
    ],
    hospital: Annotated[str, typer.Option(help=say("column that names the hospital", "병원 이름 열"))],
    outcome: Annotated[str, typer.Option(help=say("column to explain", "설명할 결과 열"))],
    time_column: Annotated[
        str | None,
        typer.Option(
            "--time", help=say("follow-up time: survival instead of a model", "추적 시간: 모형 대신 생존분석")
        ),
    ] = None,
    group: Annotated[
        str | None, typer.Option(help=say("with --time: compare its levels", "--time과 함께: 비교할 집단"))
    ] = None,
    terms: Annotated[
        str, typer.Option(help=say("only these columns, separated by commas", "이 열들만, 쉼표로 나눔"))
    ] = "",
    event: Annotated[
        str | None, typer.Option(help=say("the outcome's value that is the event", "사건으로 볼 결과 값"))
    ] = None,
    encoding: Annotated[str, typer.Option(help=say("encoding of the file", "파일 인코딩"))] = "utf-8",
    rules: Annotated[
        Literal["default", "off"],
        typer.Option(help=say("disclosure rules; off only for your own data", "공개 규칙. off는 자기 자료에만")),
    ] = "default",
) -> None:
    from dure.client.own_table import own_table, play
    from dure.client.table_file import read_table
    from dure.guard.rules import DEFAULT, OFF

    frame = read_table(table, encoding)
    chosen = [name.strip() for name in terms.split(",") if name.strip()]
    prepared = own_table(frame, hospital, outcome, time_column, group, chosen, event)
    console.print(Text(say("Hospitals: ", "병원: ") + ", ".join(prepared.sites), style="bold"))
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
                say(
                    f"Left {site}: {len(mine)} arrays, {sum(i.bytes for i in mine):,} bytes; no row.",
                    f"{site}에서 나간 것: 배열 {len(mine)}개, {sum(i.bytes for i in mine):,}바이트. 행은 없음.",
                ),
                style="dim",
            )
        )
    for error in {error.text(): error for error in failed}.values():
        show_error(error)
    if failed and not terms:
        console.print(say("Choose columns with --terms a,b,c.", "--terms a,b,c로 열을 고를 수 있습니다."))
    if failed and not any(fold.released for outcome_ in outcomes.values() for fold in outcome_.folds.values()):
        raise typer.Exit(1)
    if failed or unanswered:
        raise Unanswered


@app.command(
    help=say(
        "List the methods, the parameters of one, or the limits of the rules (`dure methods rules`).",
        "방법 목록, 한 방법의 매개변수, 또는 규칙의 한도(`dure methods rules`).",
    )
)
def methods(name: Annotated[str | None, typer.Argument(help=say("a method", "방법 이름"))] = None) -> None:
    from dure.guard.rules import Limits
    from dure.study.method import find_method, installed_methods

    known = installed_methods()
    if name == "rules":
        _parameters(Limits)
        return
    for method in [find_method(name, known)] if name else known.values():
        console.print(Text.assemble((method.name, "bold green"), f"  {method.title.say()}: {method.about.say()}"))
        _parameters(method.parameters)


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
        default = say("required", "필수") if field.is_required() else f"= {field.default!r}"
        console.print(Text.assemble("    ", (parameter, "bold"), f"  {default}  {_described(field)}"))


def _described(field: Any) -> str:
    """A parameter's description; methods give the Korean one beside it (`json_schema_extra`)."""
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    description = str(field.description or "–")
    return Words(description, str(extra.get("ko", description))).say()
