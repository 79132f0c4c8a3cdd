"""The one command, `dure`; `main` is its entry point."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the command line. Errors are three sentences and an exit code; a traceback only with --debug.

    Exit codes: 0 done; 1 an error; 2 wrong usage; 3 done, but something could not be answered (said above).
    """
    arguments = sys.argv[1:]
    for place, argument in enumerate(arguments):
        # Help texts are made when the commands are imported, so the language has to be known before.
        if argument == "--language" and place + 1 < len(arguments):
            os.environ["DURE_LANGUAGE"] = arguments[place + 1]
        elif argument.startswith("--language="):
            os.environ["DURE_LANGUAGE"] = argument.partition("=")[2]
    try:
        from dure.cli.commands import run
    except KeyboardInterrupt:  # while the commands are still being loaded
        sys.exit(130)
    sys.exit(run(arguments))
