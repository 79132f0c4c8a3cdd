"""A review board's decision of one version of a study; that of a board which hospitals share is signed with its key.

Several hospitals may name one data review board (in Korea lawful since 31 December 2025).
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import Field
from securesystemslib.signer import Key, Signer

from dure.study.document import Strict
from dure.study.permit import Grant
from dure.study.signed import seal, unseal

PAYLOAD_TYPE = "application/vnd.dure.board-decision+json"

Verdict = Literal["approve", "ask", "decline"]


class Decision(Strict):
    """`name`: `own`, or the shared board's; `hospitals`: for whom a shared board decides; `by`: who wrote it down.

    `grants`, `days` and `releases` are what an approval allows; `said` holds the reasons, for the researcher.
    """

    study: str
    board: Literal["irb", "drb"]
    verdict: Verdict
    name: str
    hospitals: tuple[str, ...] = ()
    by: str
    at: datetime
    grants: tuple[Grant, ...] = ()
    days: int = Field(365, ge=1, le=3650)
    releases: int = Field(1, ge=0, le=1000)
    said: str = ""


def sign_decision(decision: Decision, signer: Signer) -> dict[str, Any]:
    return seal(decision, PAYLOAD_TYPE, signer)


def read_decision(envelope: dict[str, Any], key: Key | None) -> Decision:
    """Raises Unsigned or pydantic's ValidationError; with no key, only what it says."""
    return unseal(envelope, PAYLOAD_TYPE, Decision, key)
