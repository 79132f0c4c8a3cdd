"""The hub's own entry point, `dure-hub`: a process that never loads what can read a hospital's rows."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from dure.errors import DureError, FileMissing
from dure.guard.acting import acting
from dure.guard.permissions import can
from dure.hub.store import Store
from dure.language import Words
from dure.study.lifecycle import STATES
from dure.study.packing import unpack

ABOUT = Words("The alliance's hub: its studies and where they stand.", "연합의 허브: 연구와 그 진행 상태.")


def main(arguments: list[str] | None = None) -> int:
    """`dure-hub serve FOLDER` or `dure-hub status --store FOLDER [--json]`."""
    parser = argparse.ArgumentParser(prog="dure-hub", description=ABOUT.say())
    commands = parser.add_subparsers(dest="command", required=True)
    status = commands.add_parser("status", help=Words("studies and their state", "연구와 상태").say())
    status.add_argument("--store", type=Path, required=True, help=Words("the hub's file", "허브의 파일").say())
    status.add_argument("--json", action="store_true")
    serving = commands.add_parser(
        "serve", help=Words("run the hub until it is stopped", "멈출 때까지 허브를 실행").say()
    )
    serving.add_argument("folder", type=Path, help=Words("the hub's folder", "허브 폴더").say())
    serving.add_argument("--health", type=int, default=None)
    serving.add_argument("--patience", type=float, default=30.0)
    chosen = parser.parse_args(arguments)
    try:
        if chosen.command == "serve":
            serve(chosen.folder, chosen.health, chosen.patience)
            return 0
        print(json.dumps(_status(chosen.store), ensure_ascii=False, indent=2) if chosen.json else _text(chosen.store))
    except DureError as error:
        print("\n".join(error.parts()), file=sys.stderr)
        return 1
    return 0


def serve(folder: Path, health: int | None, patience: float) -> None:
    """Run the hub of a folder until SIGTERM or Ctrl-C."""
    from dure.federation.health import until_stopped
    from dure.hub.service import HubService

    until_stopped(HubService(folder, health, patience=patience))


def _place(path: Path) -> Path | str:
    from dure.hub.authority import read_hub

    return read_hub(path).place if path.is_dir() else path


def _status(path: Path) -> list[dict[str, object]]:
    if not path.exists():
        raise FileMissing(path=path)
    if (path.parent / "hub.json").is_file():  # a hub's own store: its accounts decide
        path = path.parent
    actor = acting(path) if path.is_dir() else None
    store = Store(_place(path))
    found: list[dict[str, object]] = []
    for hash_, document, state in store.studies():
        study = json.loads(document)
        steps: dict[str, str] = {}
        for run in store.runs(hash_):
            for step in study["steps"]:
                entries = store.ledger(run).folds(step["name"])  # one by hospital where a hospital is left out
                steps[step["name"]] = ", ".join(sorted({str(unpack(entry)["status"]) for entry in entries})) or "–"
        permits = {name: kind for name, (kind, _, _) in store.answers(hash_).items()}
        if actor is not None and not can(actor, "see_study", store.submission(hash_)[1]):
            continue
        found.append({"study": hash_, "title": study["title"], "state": state, "permits": permits, "steps": steps})
    store.close()
    return found


def _text(path: Path) -> str:
    studies = _status(path)
    store = Store(_place(path))
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
