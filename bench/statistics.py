"""How long the methods take: hospitals in sequence through `dure.simulate` with all rules, against pooled peers.

    .venv/bin/python bench/statistics.py [--only cox trees] [--rows 1000000 --covariates 20 --hospitals 8 --repeats 5]
                                         [--growth] [--json docs/measured.json]

Each file of `bench/methods/` says what is measured: `frames(rows, covariates, hospitals)`, `ours(frames)`, `PEERS`,
`agree(ours, peer)`, and `TARGETS`, the ratio ours ÷ peer that is wanted. Everybody starts from the same frames in
memory; peers prepare their own matrices outside the clock; repeats are interleaved; medians are compared. Peers run
to the same convergence, which `agree` shows: the largest relative difference of the numbers. R is used where
`Rscript` is installed and skipped, with a word, where not. With `--growth` only ours is timed, over numbers of rows,
covariates and hospitals, and drawn; a third of the rows is enough for that.
"""

from __future__ import annotations

import sys

sys.path.pop(0)  # this folder: this file would pass for the standard library's `statistics`

import argparse
import importlib.util
import json
import os
import platform
import subprocess
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from statistics import median
from types import ModuleType
from typing import Any

import altair as alt
import vl_convert
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
IMAGES = HERE.parent / "docs" / "images"
PACKAGES = ("dure", "numpy", "scipy", "polars", "glum", "xgboost-cpu", "pandas", "lifelines")
console = Console(width=130)


@dataclass(frozen=True)
class Size:
    rows: int
    covariates: int
    hospitals: int


def modules(only: list[str]) -> dict[str, ModuleType]:
    found = {}
    for path in sorted((HERE / "methods").glob("*.py")):
        if only and path.stem not in only:
            continue
        spec = importlib.util.spec_from_file_location(f"bench_{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        found[path.stem] = module
    return found


def measured(module: ModuleType, size: Size, repeats: int) -> dict[str, Any]:
    """Median seconds of ours and of each peer, ratios, and how far the answers are apart."""
    warm = module.frames(max(20_000, 40 * size.covariates), size.covariates, size.hospitals)
    module.ours(warm)  # imports and threads are started before the clock
    frames = module.frames(size.rows, size.covariates, size.hospitals)
    seconds: dict[str, list[float]] = {"ours": []}
    answers: dict[str, Any] = {}
    missing: dict[str, str] = {}
    for _ in range(repeats):
        took, answers["ours"] = module.ours(frames)
        seconds["ours"].append(took)
        for name, peer in module.PEERS.items():
            if name in missing:
                continue
            try:
                took, answers[name] = peer(frames)
            except (FileNotFoundError, ModuleNotFoundError) as error:
                missing[name] = str(error)
                continue
            seconds.setdefault(name, []).append(took)
    ours = median(seconds["ours"])
    targets = getattr(module, "TARGETS", {})
    return {
        "method": module.METHOD,
        "what": module.WHAT,
        "seconds": ours,
        "all": seconds["ours"],
        "peers": {
            name: {
                "seconds": median(took),
                "ratio": ours / median(took),
                "target": targets.get(name),
                "apart": float(module.agree(answers["ours"], answers[name])),
            }
            for name, took in seconds.items()
            if name != "ours"
        },
        "missing": missing,
    }


def peak(name: str, size: Size) -> float:
    """Most memory of a fresh process that makes the frames and asks once, in MiB."""
    command = [sys.executable, __file__, "--peak-of", name, "--rows", str(size.rows)]
    command += ["--covariates", str(size.covariates), "--hospitals", str(size.hospitals)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def own_peak(module: ModuleType, size: Size) -> float:
    frames = module.frames(size.rows, size.covariates, size.hospitals)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # what making the frames took is not asked
    module.ours(frames)
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) / 1024


def growth(module: ModuleType, size: Size) -> list[dict[str, Any]]:
    """Seconds of ours as rows, covariates and hospitals grow, each with the others held."""
    rows = [size.rows // 8, size.rows // 4, size.rows // 2, size.rows]
    held = size.rows // 4
    sizes = [("rows", Size(n, size.covariates, size.hospitals), n) for n in rows]
    sizes += [("covariates", Size(held, p, size.hospitals), p) for p in (5, 10, 20, 40)]
    sizes += [("hospitals", Size(held, size.covariates, k), k) for k in (4, 8, 16, 32, 64)]
    found = []
    for what, one, value in sizes:
        frames = module.frames(one.rows, one.covariates, one.hospitals)
        module.ours(frames)
        found.append({"grows": what, "value": value, "seconds": module.ours(frames)[0]})
        console.print(f"  {what} {value:,}: {found[-1]['seconds']:.2f} s", style="dim")
    return found


def draw(grown: dict[str, list[dict[str, Any]]]) -> None:
    """One panel for each of rows, covariates, hospitals; a line a method; both axes logarithmic."""
    rows = [{**row, "method": name} for name, found in grown.items() for row in found]
    panels = []
    for what in ("rows", "covariates", "hospitals"):
        data = alt.Data(values=[row for row in rows if row["grows"] == what])
        ticks = sorted({row["value"] for row in rows if row["grows"] == what})
        log = alt.Scale(type="log", nice=False)
        x = alt.X("value:Q", scale=log, axis=alt.Axis(title=what, values=ticks, format="~s", grid=False))
        y = alt.Y("seconds:Q", scale=alt.Scale(type="log"), axis=alt.Axis(title="seconds", tickCount=4))
        colour = alt.Color("method:N", legend=alt.Legend(title=None, orient="bottom", columns=5))
        panels.append(
            alt.Chart(data).mark_line(point=True).encode(x=x, y=y, color=colour).properties(width=240, height=220)
        )
    chart = alt.hconcat(*panels).configure(background="white").configure_view(stroke=None)
    IMAGES.mkdir(exist_ok=True)
    (IMAGES / "growth.svg").write_text(vl_convert.vegalite_to_svg(chart.to_dict(), vl_version="6.4"), encoding="utf-8")
    console.print(str(IMAGES / "growth.svg"))


def shown(name: str, found: dict[str, Any]) -> Table:
    table = Table("", title=name, title_justify="left")
    for head in ("seconds", "ours ÷ peer", "wanted", "apart", "peak MiB"):
        table.add_column(head, justify="right")
    table.add_row("dure", f"{found['seconds']:.3f}", "", "", "", f"{found['peak_mib']:,.0f}")
    for peer, row in found["peers"].items():
        wanted = "" if row["target"] is None else f"≤ {row['target']:g}"
        met = "" if row["target"] is None else (" ✓" if row["ratio"] <= row["target"] else " ✗")
        table.add_row(peer, f"{row['seconds']:.3f}", f"{row['ratio']:.2f}{met}", wanted, f"{row['apart']:.0e}", "")
    for peer, why in found["missing"].items():
        table.add_row(peer, "–", f"not here: {why}", "", "", "")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--covariates", type=int, default=20)
    parser.add_argument("--hospitals", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--growth", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--peak-of", help=argparse.SUPPRESS)
    given = parser.parse_args()
    size = Size(given.rows, given.covariates, given.hospitals)
    if given.peak_of:
        print(own_peak(modules([given.peak_of])[given.peak_of], size))
        return
    written: dict[str, Any] = json.loads(given.json.read_text("utf-8")) if given.json and given.json.exists() else {}
    machine = {"date": date.today().isoformat(), "cores": os.cpu_count(), "python": platform.python_version()}
    written["machine"] = machine | {name: version(name) for name in PACKAGES}
    if not given.growth:
        written["size"] = vars(size)
    for name, module in modules(given.only).items():
        console.print(f"{name} …", style="dim")
        found = written.setdefault("methods", {}).get(name, {})
        if given.growth:
            found = found | {"growth": growth(module, size)}
        else:
            found = found | measured(module, size, given.repeats) | {"peak_mib": peak(name, size)}
            console.print(shown(name, found))
        written["methods"][name] = found
        if given.json:  # after each: a long run that is stopped keeps what it has
            given.json.write_text(json.dumps(written, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if given.growth:
        draw({name: found["growth"] for name, found in written["methods"].items() if "growth" in found})


if __name__ == "__main__":
    main()
