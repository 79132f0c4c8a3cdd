"""The commands of people who keep studies, hospitals and the hub: `dure study`, `dure site`, `dure hub`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from dure.cli.screen import Unanswered, console, say, show_remark, show_table
from dure.language import Words

study_app = typer.Typer(
    help=say("Read and check study documents.", "연구 문서를 읽고 검사합니다."), no_args_is_help=True
)
site_app = typer.Typer(
    help=say("A hospital's own work: standardise, quality, audit.", "병원의 일: 표준화, 품질, 감사."),
    no_args_is_help=True,
)
hub_app = typer.Typer(help=say("The alliance's hub.", "연합의 허브."), no_args_is_help=True)


@study_app.command(
    help=say(
        "Read a study document; its hash, or what is wrong and on which line.",
        "연구 문서를 읽고 해시, 또는 몇 행이 왜 틀렸는지 보입니다.",
    )
)
def check(document: Annotated[Path, typer.Argument(help=say("a study (YAML)", "연구(YAML)"))]) -> None:
    from dure.federation.plan import plan_of
    from dure.study.method import installed_methods
    from dure.study.spec import read_study

    study = read_study(document)
    plan_of(study, installed_methods()).check(("A", "B", "C"))
    console.print(Text.assemble((study.title.words().say(), "bold"), f"\n{study.hash}\n"))
    console.print(", ".join(f"{step.name} ({step.method})" for step in study.steps))


@study_app.command(
    help=say(
        "What a study will send from each hospital, and which permissions it needs.",
        "연구가 병원마다 내보낼 것과 필요한 허가.",
    )
)
def preview(
    document: Annotated[Path, typer.Argument(help=say("a study (YAML)", "연구(YAML)"))],
    hospitals: Annotated[int, typer.Option(min=1, help=say("how many hospitals take part", "참여 병원 수"))] = 4,
) -> None:
    import polars as pl

    from dure.federation.preview import preview as look
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
        say(f"First round of each step, {hospitals} hospitals", f"단계마다 첫 라운드, 병원 {hospitals}곳"),
        pl.DataFrame(rows),
        {},
    )
    for grant, steps in needed.items():
        console.print(Text(f"{grant}: {', '.join(steps)}"))


@site_app.command(
    help=say(
        "Turn a hospital's export into its OMOP database by a mapping plan.",
        "매핑 계획에 따라 병원 내보내기를 OMOP 데이터베이스로 만듭니다.",
    )
)
def standardise(
    plan: Annotated[Path, typer.Argument(help=say("a mapping plan (YAML)", "매핑 계획(YAML)"))],
    exports: Annotated[Path, typer.Option(help=say("folder of the export", "내보내기 폴더"))],
    database: Annotated[Path, typer.Option(help=say("database to write", "만들 데이터베이스"))],
    concepts: Annotated[Path | None, typer.Option(help=say("CSV of local concepts", "자체 개념 CSV"))] = None,
) -> None:
    from dure.standardise.load import standardise as load

    _keeps_data(database)
    report = load(plan, exports, database, concepts=concepts)
    console.print(
        Text(
            say(f"{report.rows_read} rows read → {database}", f"{report.rows_read}행을 읽음 → {database}"),
            style="bold green",
        )
    )
    for table, rows in report.rows.items():
        console.print(Text(f"  {table}: {rows:,}"))
    missing = ", ".join(f"{name} {count:,}" for name, count in report.missing.items() if count)
    if missing:
        console.print(Text(say(f"  missing: {missing}", f"  결측: {missing}")))
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
    help=say("Check a standardised database against its plan.", "표준화한 데이터베이스를 계획에 비추어 검사합니다.")
)
def quality(
    plan: Path, database: Annotated[Path, typer.Option(help=say("the hospital's database", "병원 데이터베이스"))]
) -> None:
    import polars as pl

    from dure.standardise.mapping import read_plan
    from dure.standardise.quality import quality as look

    _keeps_data(database)
    found = look(database, read_plan(plan))
    rows = [{name: _plain(getattr(row, name)) for name in row.__dataclass_fields__} for row in found]
    show_table(say("Quality", "품질"), pl.DataFrame(rows), {})
    if any(row.status == "fail" for row in found):
        raise Unanswered


@site_app.command(
    help=say("Verify a hospital's audit log and count its entries.", "병원 감사 기록을 검증하고 항목을 셉니다.")
)
def audit(folder: Annotated[Path, typer.Argument(help=say("the hospital's folder", "병원 폴더"))]) -> None:
    from dure.guard.acting import may
    from dure.site.settings import Site

    site = Site(folder)
    may(folder, "audit_site")
    console.print(
        Text(
            say(
                f"{site.hospital}: {site.audit.verify()} entries, unbroken",
                f"{site.hospital}: 항목 {site.audit.verify()}개, 끊김 없음",
            ),
            style="green",
        )
    )


@site_app.command(
    help=say(
        "The keys of other hospitals as this one knows them; compare each by telephone with that hospital.",
        "이 병원이 아는 다른 병원의 키. 그 병원과 전화로 하나씩 대조하십시오.",
    )
)
def peers(
    folder: Annotated[Path, typer.Argument(help=say("the hospital's folder", "병원 폴더"))],
    closed: Annotated[
        bool | None,
        typer.Option(
            "--close/--open",
            help=say(
                "accept no hospital that is not on this list, once all were compared; or accept new ones again",
                "모두 대조한 뒤 목록에 없는 병원을 받지 않음, 또는 다시 받음",
            ),
        ),
    ] = None,
) -> None:
    import polars as pl

    from dure.guard.acting import may
    from dure.site.peers import Peers, fingerprint
    from dure.site.settings import Site

    site = Site(folder)
    own = bytes.fromhex(site.public_key()["keyval"]["public"])
    known = {site.hospital: own} | {name: key for name, key in Peers(site).known().items() if name != site.hospital}
    rows = [{"hospital": name, "key": fingerprint(key)} for name, key in known.items()]
    show_table(say("Keys of hospitals (the first is its own)", "병원의 키(첫째는 자기 것)"), pl.DataFrame(rows), {})
    if closed is not None:
        may(folder, "keep_data")
        Peers(site).close(closed)
    console.print(
        say("The list is closed: no other hospital is accepted.", "닫힌 목록: 다른 병원은 받지 않습니다.")
        if Peers(site).closed
        else say(
            "The list is open: a hospital that the hub names is added when it is first seen. Compare, then --close.",
            "열린 목록: 허브가 말하는 병원이 처음 보일 때 더해집니다. 대조한 뒤 --close 하십시오.",
        )
    )


@hub_app.command(help=say("Studies at the hub and where they stand.", "허브의 연구와 상태."))
def status(store: Annotated[Path, typer.Option(help=say("the hub's folder or file", "허브의 폴더 또는 파일"))]) -> int:
    from dure.guard.acting import acting
    from dure.hub.entry import main as hub

    if (store / "hub.json").is_file():
        acting(store)  # what it says where nobody is signed in is shown as everywhere
    return hub(["status", "--store", str(store)])


def _keeps_data(database: Path) -> None:
    """A database in a hospital's folder is the business of those who keep its data; one elsewhere is anybody's."""
    from dure.guard.acting import may

    if (database.parent / "site.yaml").is_file():
        may(database.parent, "keep_data")


def _plain(value: object) -> Any:
    if isinstance(value, Words):
        return value.say()
    return value if isinstance(value, int | float | str) or value is None else json.dumps(value, default=str)
