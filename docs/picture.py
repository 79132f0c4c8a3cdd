"""Takes the README's picture: the demonstration's report, its headline and its two main figures, in Chromium.

Run after `make demo`: python docs/picture.py [demo/report.html]. Needs Debian's chromium.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
HIDDEN = "#question, #where, #attrition, #table_one, #calibration, #left, #checked, #documents, #next"
# Of the model's section only the forest plot is shown.
STYLE = f"<style>{HIDDEN}, #model > *:not(h2):not(:has(svg)) {{ display: none !important }}</style>"


def main() -> None:
    report = Path(sys.argv[1] if len(sys.argv) > 1 else "demo/report.html")
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        page.write_text(report.read_text(encoding="utf-8").replace("</head>", STYLE + "</head>"), encoding="utf-8")
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        options += ["--disable-component-update", "--disable-sync", "--no-first-run", "--hide-scrollbars"]
        picture = HERE / "images" / "report.png"
        picture.parent.mkdir(exist_ok=True)
        options += [f"--user-data-dir={folder}/profile", f"--screenshot={picture}", "--window-size=1280,1830"]
        subprocess.run(["chromium", *options, page.as_uri()], check=True, capture_output=True)
    print(picture)


if __name__ == "__main__":
    main()
