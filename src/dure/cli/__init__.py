"""The one command, `dure`; `main` is its entry point."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the command line. Errors are three sentences and an exit code; a traceback only with --debug.

    Exit codes: 0 done; 1 an error; 2 wrong usage; 3 done, but something could not be answered (said above).
    """
    arguments, language = _language_of(sys.argv[1:])
    if language:
        # Help texts are made when the commands are imported, so the language has to be known before.
        os.environ["DURE_LANGUAGE"] = language
        arguments = ["--language", language, *arguments]
    try:
        from dure.cli.commands import run
    except KeyboardInterrupt:  # while the commands are still being loaded
        sys.exit(130)
    sys.exit(run(arguments))


def _language_of(arguments: list[str]) -> tuple[list[str], str | None]:
    """The arguments without --language, wherever it stands, and its value."""
    rest: list[str] = []
    language: str | None = None
    waiting = iter(arguments)
    for argument in waiting:
        if argument == "--language":
            language = next(waiting, "")
        elif argument.startswith("--language="):
            language = argument.partition("=")[2]
        else:
            rest.append(argument)
    return rest, language
