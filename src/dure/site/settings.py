"""A hospital's settings file, `site.yaml`: its name, its OMOP database, its key, and its tighter limits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import Field
from securesystemslib.signer import CryptoSigner

from dure.guard.audit import AuditLog
from dure.guard.keys import create_signer, read_signer
from dure.guard.rules import DEFAULT, Limits, tighten
from dure.study.document import Strict, read_document
from dure.study.permit import key_document


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


class OpenFeasibility(Strict):
    """Loss of privacy that open questions may cost here (ε, differential privacy): of one study, and of all studies
    of one proposer in 30 days."""

    epsilon_per_study: float = Field(1.0, gt=0, le=1)
    epsilon_per_month: float = Field(2.0, gt=0)


class SiteFile(Strict):
    """`limits` may only tighten the alliance's rules. Paths are relative to the file. Without `open_feasibility` every
    study needs the boards."""

    hospital: str = Field(min_length=1)
    database: Path = Path("omop.duckdb")
    limits: dict[str, float] = Field(default_factory=dict)
    resources: Resources = Resources()
    open_feasibility: OpenFeasibility | None = None


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


def create_site(folder: Path, hospital: str) -> Site:
    """A new hospital folder with settings and a key of its own; what is there already is kept."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    settings = folder / "site.yaml"
    if not settings.exists():
        settings.write_text(yaml.safe_dump({"hospital": hospital, "database": "omop.duckdb"}, allow_unicode=True))
    if not (folder / "key.pem").exists():
        create_signer(folder / "key.pem")
    return Site(folder)
