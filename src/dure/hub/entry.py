"""The hub's own entry point, `dure-hub`: a process that never loads what can read a hospital's rows."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from dure.errors import DureError, FileMissing
from dure.hub.store import Store
from dure.language import Words
from dure.study.lifecycle import STATES
from dure.study.packing import unpack

ABOUT = Words("The alliance's hub: its studies and where they stand.", "연합의 허브: 연구와 그 진행 상태.")


def main(arguments: list[str] | None = None) -> int:
    """`dure-hub status --store hub.db [--json]`."""
    parser = argparse.ArgumentParser(prog="dure-hub", description=ABOUT.say())
    commands = parser.add_subparsers(dest="command", required=True)
    status = commands.add_parser("status", help=Words("studies and their state", "연구와 상태").say())
    status.add_argument("--store", type=Path, required=True, help=Words("the hub's file", "허브의 파일").say())
    status.add_argument("--json", action="store_true")
    chosen = parser.parse_args(arguments)
    try:
        print(json.dumps(_status(chosen.store), ensure_ascii=False, indent=2) if chosen.json else _text(chosen.store))
    except DureError as error:
        print("\n".join(error.parts()), file=sys.stderr)
        return 1
    return 0


def _status(path: Path) -> list[dict[str, object]]:
    if not path.is_file():
        raise FileMissing(path=path)
    store = Store(path)
    found: list[dict[str, object]] = []
    for hash_, document, state in store.studies():
        study = json.loads(document)
        steps: dict[str, str] = {}
        for run in store.runs(hash_):
            for step in study["steps"]:
                entries = store.ledger(run).folds(step["name"])  # one by hospital where a hospital is left out
                steps[step["name"]] = ", ".join(sorted({str(unpack(entry)["status"]) for entry in entries})) or "–"
        permits = {name: "permitted" if envelope else "declined" for name, envelope in store.permits(hash_).items()}
        found.append({"study": hash_, "title": study["title"], "state": state, "permits": permits, "steps": steps})
    store.close()
    return found


def _text(path: Path) -> str:
    studies = _status(path)
    store = Store(path)
    lines = [", ".join(store.hospitals()) or "–"]
    store.close()
    for study in studies:
        title = study["title"]
        assert isinstance(title, dict)
        state = STATES[study["state"]][0].say()  # type: ignore[index]
        lines.append(f"{str(study['study'])[7:19]}  {state}  {Words(title['en'], title['ko']).say()}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
