"""A hospital's settings file, `site.yaml`: its name, its OMOP database, its key, and its tighter limits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, field_validator, model_validator
from securesystemslib.signer import CryptoSigner

from dure.guard.audit import AuditLog
from dure.guard.keys import create_signer, read_signer
from dure.guard.log_check import Keys
from dure.guard.rules import DEFAULT, Limits, tighten
from dure.study.document import Strict, read_document
from dure.study.permit import key_document
from dure.study.signed import key_of


class Resources(Strict):
    """What one study may use at this hospital at a time: `memory` such as `8 GiB`, processor `cores`, `minutes` for one
    answer; and how many `studies` are worked on at once, the others wait."""

    memory: str = Field("8 GiB", pattern=r"^\d+(\.\d+)? ?(MiB|GiB)$")
    cores: int = Field(2, ge=1)
    minutes: float = Field(60, gt=0)
    studies: int = Field(4, ge=1)

    @property
    def bytes(self) -> int:
        number, unit = self.memory[:-3].strip(), self.memory[-3:]
        return int(float(number) * {"MiB": 2**20, "GiB": 2**30}[unit])

    @property
    def seconds(self) -> float:
        return self.minutes * 60


Board = Literal["irb", "drb"]
OWN = "own"


class OpenFeasibility(Strict):
    """Loss of privacy that open questions may cost here (ε, differential privacy): of one study, and of all studies
    of one proposer in 30 days."""

    epsilon_per_study: float = Field(1.0, gt=0, le=1)
    epsilon_per_month: float = Field(2.0, gt=0)


class SiteFile(Strict):
    """`limits` may only tighten the alliance's rules. Paths are relative to the file.

    `boards`: whose decision each gate needs: `own`, or the name of a board that several hospitals share, whose public
    key then stands in `board_keys` (64 hexadecimal digits, from `dure review key`). `keep_weights`: the list of what
    left also holds model weights above 1 MiB, of which it otherwise notes size and digest. Without `open_feasibility`
    every study needs the boards.
    """

    hospital: str = Field(min_length=1)
    database: Path = Path("omop.duckdb")
    limits: dict[str, float] = Field(default_factory=dict)
    resources: Resources = Resources()
    keep_weights: bool = False
    boards: dict[Board, str] = Field(default_factory=dict, validate_default=True)
    board_keys: dict[str, str] = Field(default_factory=dict)
    open_feasibility: OpenFeasibility | None = None

    @field_validator("boards")
    @classmethod
    def _both_gates(cls, boards: dict[Board, str]) -> dict[Board, str]:
        return {"irb": OWN, "drb": OWN, **boards}

    @model_validator(mode="after")
    def _known_boards(self) -> SiteFile:
        for name in set(self.boards.values()) - {OWN}:
            if name not in self.board_keys:
                raise ValueError(f"the shared board '{name}' needs its key in `board_keys`")
            key_of(bytes.fromhex(self.board_keys[name]))
        return self


class Site:
    """One hospital's folder: `site.yaml`, key, database, inbox, round store and audit log."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = read_document(folder / "site.yaml", SiteFile)
        self.hospital = self.file.hospital
        self.database = folder / self.file.database
        self.audit = AuditLog(folder / "audit.jsonl")

    @property
    def limits(self) -> Limits:
        return tighten(self.file.limits, DEFAULT)

    def signer(self) -> CryptoSigner:
        return read_signer(self.folder / "key.pem")

    def public_key(self) -> dict[str, Any]:
        """What the hospital hands to the alliance when it joins."""
        return key_document(self.signer().public_key)


def keys_of(folder: Path) -> Keys:
    """The hospital's own key, and the hub's as the invitation gave it, for the check of its log."""
    site, path = Site(folder), folder / "member.json"
    others = {}
    if path.is_file():
        member = json.loads(path.read_text(encoding="utf-8"))
        others = {member["alliance"]: [key_of(bytes.fromhex(member["hub_key"]))]}
    return Keys(site.hospital, site.signer().public_key, others)


def create_site(folder: Path, hospital: str) -> Site:
    """A new hospital folder with settings and a key of its own; what is there already is kept."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    settings = folder / "site.yaml"
    if not settings.exists():
        settings.write_text(yaml.safe_dump({"hospital": hospital, "database": "omop.duckdb"}, allow_unicode=True))
    if not (folder / "key.pem").exists():
        create_signer(folder / "key.pem")
    return Site(folder)
