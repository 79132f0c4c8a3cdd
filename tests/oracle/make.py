"""Runs every R script of this folder and stores its numbers with the hashes of the script and of the tables it read.

`tests/oracle/<name>.R` reads `data/*.csv` (working folder: this one), and ends with `answer(list(…))`, which writes
`<name>.json`; `data/<name>.py` writes tables, always the same. Without arguments all scripts run; else those named.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
PRELUDE = """
answer <- function(numbers) {
  used <- sessionInfo()
  packages <- lapply(c(used$otherPkgs, used$loadedOnly), function(p) p$Version)
  text <- jsonlite::toJSON(list(numbers = numbers, R = paste(R.version$major, R.version$minor, sep = "."),
                                packages = packages), auto_unbox = TRUE, digits = NA, na = "null", null = "null")
  writeLines(text, Sys.getenv("ORACLE_ANSWER"))
}
options(digits = 17, warn = 1)
"""


def main(names: list[str]) -> int:
    rscript = shutil.which("Rscript")
    if rscript is None:
        print("Rscript is not installed; on Debian: see the target `oracle` in the Makefile", file=sys.stderr)
        return 1
    for maker in sorted((HERE / "data").glob("*.py")):
        if not names or maker.stem in names:
            subprocess.run([sys.executable, maker], cwd=HERE, check=True)
    for script in sorted(HERE.glob("*.R")):
        if names and script.stem not in names:
            continue
        text = script.read_text(encoding="utf-8")
        with tempfile.TemporaryDirectory() as folder:
            whole, out = Path(folder) / "script.R", Path(folder) / "answer.json"
            whole.write_text(PRELUDE + text, encoding="utf-8")
            run = {"ORACLE_ANSWER": str(out), "PATH": "/usr/bin:/bin:/usr/local/bin", "LC_ALL": "C.UTF-8"}
            subprocess.run([rscript, "--vanilla", whole], cwd=HERE, env=run, check=True)
            answer = json.loads(out.read_text(encoding="utf-8"))
        read = [script, *(HERE / name for name in sorted(set(re.findall(r"data/[\w.]+\.csv", text))))]
        stored = {
            "made_with": {"R": answer["R"], **answer["packages"]},
            "of": {str(file.relative_to(HERE)): hashlib.sha256(file.read_bytes()).hexdigest() for file in read},
            "numbers": answer["numbers"],
        }
        target = HERE / f"{script.stem}.json"
        target.write_text(json.dumps(stored, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(f"{target.name}: R {answer['R']}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
