"""The page of accuracy and cost: what the tests measured against outside programs, and what the benchmark took.

`python docs/accuracy.py` runs the methods' tests and stores the largest differences in `docs/compared.json`;
`docs/generate.py` makes the page from that file and from `docs/measured.json`, which `bench/statistics.py` writes.
"""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
COMPARED, MEASURED = DOCS / "compared.json", DOCS / "measured.json"
Row = tuple[str, ...]
Key = tuple[str, str, str]


def compared() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(COMPARED.read_text(encoding="utf-8"))
    return found


def measured() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(MEASURED.read_text(encoding="utf-8"))
    return found


def power(value: float) -> str:
    return "0" if value == 0 else f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e")


def summary(ran: Mapping[str, Mapping[str, Any]]) -> Iterator[Row]:
    """One row a method: law, oracles, largest difference, rounds, numbers that leave, rules, seconds at full size.

    `ran`: method → law, rounds, numbers, rules of its example at four hospitals.
    """
    seconds: dict[str, list[str]] = {}
    for name, found in measured()["methods"].items():
        seconds.setdefault(found.get("method", name), []).append(
            f"{found['seconds']:.1f} s ({found.get('what', name)})"
        )
    for name, about in ran.items():
        own = [row for row in compared() if row["method"] == name]
        exact = [row["largest"] for row in own if row["tolerance"] <= 1e-8]
        looser = [row["largest"] for row in own if row["tolerance"] > 1e-8]
        largest = [power(max(exact))] if exact else []
        largest += [f"{power(max(looser))} (oracle's own tolerance)"] if looser else []
        oracles = ", ".join(sorted({_program(row["oracle"]) for row in own}))
        yield (
            f"`{name}`",
            str(about["law"]).replace("_", " "),
            oracles or ("in its own tests" if about["law"] == "approximate" else "brute force in its tests"),
            "; ".join(largest) or "–",
            str(about["rounds"]),
            f"{about['numbers']:,}",
            ", ".join(about["rules"]),
            "; ".join(seconds.get(name, [])) or "–",
        )


PROGRAMS = (
    "statsmodels",
    "lifelines",
    "scikit-survival",
    "scikit-learn",
    "glum",
    "XGBoost",
    "NumPy",
    "pandas",
    "SciPy",
)


def _program(oracle: str) -> str:
    """The program's name, R's with its package; what is no program is a computation of the test's own."""
    words = re.findall(r"[\w:.-]+", oracle)
    if words[0] == "R":
        return f"R {words[1].split('::')[0]}" if len(words) > 1 else "R"
    known = next((name for name in PROGRAMS if words[0].startswith(name)), None)
    return known or "a dense computation"


def comparisons() -> Iterator[Row]:
    for row in compared():
        yield f"`{row['method']}`", row["oracle"], row["what"], power(row["largest"]), power(row["tolerance"])


def timings() -> Iterator[Row]:
    for name, found in measured()["methods"].items():
        what = found.get("what", name)
        for peer, row in found["peers"].items():
            target = "–" if row["target"] is None else f"≤ {row['target']:g}"
            met = "" if row["target"] is None else ("yes" if row["ratio"] <= row["target"] else "**no**")
            yield (
                what,
                peer,
                f"{found['seconds']:.2f}",
                f"{row['seconds']:.2f}",
                f"{row['ratio']:.2f}",
                target,
                met,
                power(row["apart"]),
                f"{found['peak_mib']:,.0f}",
            )


def page(ran: Mapping[str, Mapping[str, Any]], table: Callable[[Row, list[Row]], str]) -> str:
    """The page's text; `table` writes a Markdown table, `ran` as in `summary`."""
    machine = measured()["machine"]
    size = measured()["size"]
    head = ("method", "law", "oracles", "largest difference", "rounds", "numbers that leave a hospital", "rules passed")
    return "\n\n".join(
        [
            "# Accuracy and cost",
            "What the tests in `tests/methods` measured against outside programs (`make accuracy` repeats it) and what "
            "`bench/statistics.py` took. Differences are relative: of estimates, to the larger of the value and its "
            "standard error. Rounds and numbers are those of each method's own example at four hospitals; every array "
            "is listed in [methods](methods.md), every rule in [rules](rules.md). One hospital and any split of people "
            "over hospitals give the same answer to 1e-8 under the method's law (`tests/methods/test_laws.py`).",
            table((*head, "seconds"), list(summary(ran))),
            "## Time against peers",
            f"{size['rows']:,} rows, {size['covariates']} covariates, {size['hospitals']} hospitals in sequence, "
            f"medians of interleaved repeats on {machine['cores']} cores ({machine['date']}). Peers get pooled rows "
            "and run to the same convergence; *apart* is the largest relative difference of the numbers.",
            table(
                ("what", "peer", "dure, s", "peer, s", "ratio", "wanted", "met", "apart", "peak MiB"),
                list(timings()),
            ),
            "![Seconds as rows, covariates and hospitals grow](../images/growth.svg)",
            "## Every comparison",
            table(("method", "oracle", "what", "largest", "tolerance"), list(comparisons())),
        ]
    )


def main() -> int:
    """Run the methods' tests and store what they measured; rounded up, so that a machine's last bit changes nothing."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "tests/methods"]
        ran = subprocess.run(command, cwd=DOCS.parent, env={**os.environ, "DURE_COMPARED": folder}, check=False)
        rows = [row for path in sorted(Path(folder).glob("*.json")) for row in json.loads(path.read_text("utf-8"))]
    if ran.returncode or not rows:
        return 1
    largest: dict[Key, dict[str, Any]] = {}
    for row in rows:
        key = (row["method"], row["oracle"], row["what"])
        kept = largest.setdefault(key, row)
        if row["largest"] > kept["largest"]:
            largest[key] = row
    stored = [{**row, "largest": _up(row["largest"])} for _, row in sorted(largest.items())]
    COMPARED.write_text(json.dumps(stored, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{len(stored)} comparisons")
    return 0


def _up(value: float) -> float:
    """Rounded up to one significant digit."""
    if value == 0:
        return 0.0
    unit = 10.0 ** math.floor(math.log10(value))
    return float(f"{math.ceil(value / unit - 1e-9) * unit:.0e}")


if __name__ == "__main__":
    sys.exit(main())
