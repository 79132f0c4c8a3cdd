"""`dure site egress`: every number that ever left a hospital, as a table, JSON or CSV."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from dure.cli.screen import console, say, show_table
from dure.cli.steward import SiteFolder, site_app

__all__ = ["site_app"]

if TYPE_CHECKING:
    from dure.site.egress import Left


@site_app.command(
    help=say(
        "Every number that ever left the hospital, with study and permit.",
        "병원에서 나간 모든 수치와 그 연구, 허가서.",
    )
)
def egress(
    folder: SiteFolder,
    study: Annotated[str | None, typer.Option(help=say("only this study (its hash)", "이 연구만(해시)"))] = None,
    step: Annotated[str | None, typer.Option(help=say("only this step", "이 단계만"))] = None,
    numbers: Annotated[
        bool, typer.Option("--numbers", help=say("each number with its label", "수치 하나하나와 그 이름"))
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help=say("as JSON", "JSON으로"))] = False,
    csv: Annotated[Path | None, typer.Option(help=say("write a CSV file", "CSV 파일로 쓰기"))] = None,
) -> None:
    import polars as pl

    from dure.guard.acting import may
    from dure.site import inbox
    from dure.site.egress import FILE, Egress
    from dure.site.settings import Site

    may(folder, "see_egress")
    site = Site(folder)
    if not (folder / FILE).is_file():
        console.print(say("Nothing has left this hospital.", "이 병원에서 나간 것이 없습니다."))
        return
    kept = Egress(folder / FILE)
    found = list(kept.read(inbox.find(site, study) if study else None, step, numbers or as_json))
    kept.close()
    if as_json:
        sys.stdout.write(json.dumps([_plain(left, numbers) for left in found], ensure_ascii=False, indent=1) + "\n")
    elif csv:
        rows = [row for left in found for row in (_cells(left) if numbers else [_row(left)])]
        pl.DataFrame(rows, infer_schema_length=None).write_csv(csv, include_bom=True)  # Korean in a spreadsheet
        console.print(Text(say(f"{len(rows)} rows: {csv}", f"{len(rows)}행: {csv}"), style="bold green"))
    else:
        _show(site.hospital, found, numbers)


def _show(hospital: str, found: list[Left], numbers: bool) -> None:
    """A table for each study, the totals last."""
    import polars as pl

    from dure.site.egress import KINDS

    for _, group in groupby(sorted(found, key=lambda left: left.study), key=lambda left: left.study):
        mine = list(group)
        console.print(Text(f"{mine[0].title.say()}  {mine[0].study[7:19]}", style="bold"))
        for permit, of_permit in groupby(mine, key=lambda left: left.permit):
            under = list(of_permit)
            letters = {
                rules: chr(ord("a") + place) for place, rules in enumerate(dict.fromkeys(u.rules for u in under))
            }
            when = (
                " – ".join(dict.fromkeys(left.time[:16].replace("T", " ") for left in (under[0], under[-1]))) + " UTC"
            )
            rows: list[dict[str, Any]]
            if numbers:
                rows = [
                    {
                        "step": _place(left),
                        "array": left.array,
                        "cell": name,
                        "number": f"{value:.6g}" if isinstance(value, float) else f"{value:,}",
                    }
                    for left in under
                    for name, value in left.cells()
                ]
            else:
                rows = [
                    {
                        "step": _place(left),
                        "array": left.array,
                        "kind": KINDS[left.kind].say(),
                        "shape": "×".join(map(str, left.shape)) or "1",
                        "numbers": left.count,
                        "masked": say("yes", "예") if left.masked else say("no", "아니요"),
                        "rules": letters[left.rules],
                    }
                    for left in under
                ]
            title = say(f"under permit {permit[7:19]}, {when}", f"허가서 {permit[7:19]}, {when}")
            _once(rows)
            show_table(title, pl.DataFrame(rows), {})
            for rules, letter in letters.items() if not numbers else ():
                console.print(Text(say(f"rules {letter}: ", f"규칙 {letter}: ") + ", ".join(rules), style="dim"))
            console.print()
    studies, count = len({left.study for left in found}), sum(left.count for left in found)
    size, open_ = sum(left.bytes for left in found), sum(left.count for left in found if not left.masked)
    console.print(
        Text(
            say(
                f"{hospital}: {count:,} numbers in {len(found):,} arrays ({size:,} bytes) have left; "
                f"studies: {studies}. Not masked: {open_:,}.",
                f"{hospital}: 연구 {studies}건에 배열 {len(found):,}개, 수치 {count:,}개({size:,}바이트)가 나갔습니다. "
                f"그중 가려지지 않은 수치는 {open_:,}개입니다.",
            ),
            style="bold",
        )
    )
    if any(left.kind == "weights" for left in found):
        console.print(
            Text(
                say(
                    "Large weights are listed with size and digest only, unless site.yaml says keep_weights: true.",
                    "큰 가중치는 크기와 요약값만 남깁니다. site.yaml에 keep_weights: true가 있으면 수치도 남깁니다.",
                ),
                style="dim",
            )
        )


def _once(rows: list[dict[str, Any]]) -> None:
    """A step and an array where they begin, and nothing below: columns read in blocks."""
    for row, before in reversed(list(zip(rows[1:], rows))):
        if row["step"] == before["step"]:
            row["array"] = "" if row["array"] == before["array"] else row["array"]
            row["step"] = ""


def _place(left: Left) -> str:
    """Step, round, and the hospital left out."""
    fold = f" –{left.fold}" if left.fold else ""
    return f"{left.step}{fold} #{left.round + 1}"


def _row(left: Left) -> dict[str, Any]:
    """One array, flat."""
    return {
        "time": left.time,
        "study": left.study,
        "title": left.title.say(),
        "run": left.run,
        "step": left.step,
        "round": left.round + 1,
        "without": left.fold or "",
        "permit": left.permit,
        "array": left.array,
        "kind": left.kind,
        "shape": "×".join(map(str, left.shape)) or "1",
        "numbers": left.count,
        "bytes": left.bytes,
        "masked": left.masked,
        "rules": ", ".join(left.rules),
        "sha256": left.sha256,
    }


def _cells(left: Left) -> Iterator[dict[str, Any]]:
    """One row for each number; one without a number where none is kept."""
    about = {name: value for name, value in _row(left).items() if name not in ("numbers", "bytes", "sha256")}
    for cell, value in left.cells() if left.numbers is not None else [("", None)]:
        yield {**about, "cell": cell, "number": None if value is None else float(value)}


def _plain(left: Left, numbers: bool) -> dict[str, Any]:
    values = left.numbers.tolist() if numbers and left.numbers is not None else None
    return _row(left) | {"labels": list(left.labels)} | ({"values": values} if numbers else {})
