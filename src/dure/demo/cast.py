"""Who plays in the governed demonstration: seven hospitals with their people, a company, a shared board, the office.

The seven are the four hospitals of UCI Heart Disease, three of them in two halves that act as hospitals of their own.
"""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import duckdb
import yaml
from securesystemslib.signer import CryptoSigner

from dure.demo import offices
from dure.demo.alliance import open_hospitals
from dure.federation.membership import Membership
from dure.guard.accounts import Accounts
from dure.guard.certificates import write_private
from dure.guard.keys import read_signer
from dure.guard.permissions import Actor, Role
from dure.guard.tree_heads import Heads
from dure.hub.authority import Hub, create_hub, identity_of
from dure.hub.store import Store
from dure.language import Words
from dure.site.settings import Site, create_site
from dure.study.permit import key_document, read_key

ALLIANCE = "Demonstration"
COMPANY = "Company"
BOARD = "Joint board"
SEVEN: Mapping[str, tuple[str, int | None]] = {
    "Cleveland East": ("Cleveland", 0),
    "Cleveland West": ("Cleveland", 1),
    "Hungary North": ("Hungary", 0),
    "Hungary South": ("Hungary", 1),
    "Switzerland": ("Switzerland", None),
    "Long Beach A": ("VA Long Beach", 0),
    "Long Beach B": ("VA Long Beach", 1),
}
"""Hospital → whose patients it has, and which half of them (person number modulo 2)."""
SHARING = ("Hungary North", "Hungary South")
"""Hospitals that named the shared data review board."""


@dataclass
class Cast:
    """Folders, keys and accounts; `sign_in` proves a password each time, as a person would."""

    hub: Hub
    store: Store
    sites: dict[str, Site]
    board: CryptoSigner
    heads: dict[str, Heads]
    _passwords: dict[tuple[Path, str], str] = field(default_factory=dict, repr=False)

    def add(self, folder: Path, name: str, role: Role, organisation: str = "") -> None:
        """An account with a password made here, kept only while the demonstration runs."""
        self._passwords[folder, name] = secrets.token_urlsafe(18)
        Accounts(folder).add(name, role, self._passwords[folder, name], organisation)

    def write_passwords(self, path: Path) -> None:
        """For whoever wants to look around afterwards: they open this demonstration only."""
        lines = [f"{folder}\t{name}\t{password}\n" for (folder, name), password in self._passwords.items()]
        write_private(path, "".join(lines).encode())

    def sign_in(self, folder: Path, name: str) -> Actor:
        """Somebody signs in, acts once, and is known by their session."""
        accounts = Accounts(folder)
        return accounts.who(accounts.sign_in(name, self._passwords[folder, name])).actor

    def at(self, hospital: str, role: Role) -> Actor:
        return self.sign_in(self.sites[hospital].folder, role)

    def at_hub(self, name: str) -> Actor:
        return self.sign_in(self.hub.folder, name)

    def countersign(self) -> None:
        """Hub and hospitals sign their logs and show them to each other, as their services do while they run."""
        for heads in self.heads.values():
            heads.close()
        hub = self.heads[ALLIANCE]
        hub_key = read_signer(self.hub.folder / "key.pem").public_key
        for name, site in self.sites.items():
            key = read_key(site.public_key())
            hub.show(name, key, lambda body, name=name: self.heads[name].receive(ALLIANCE, hub_key, body))  # type: ignore[misc]
            self.heads[name].show(ALLIANCE, hub_key, lambda body, name=name, key=key: hub.receive(name, key, body))  # type: ignore[misc]


def gather(folder: Path, say: Callable[[Words], None]) -> Cast:
    """Databases, folders, keys, members and accounts of everybody."""
    four, _ = open_hospitals(folder, lambda words: None)
    board = CryptoSigner.generate_ed25519()
    hub = create_hub(folder / "hub", ALLIANCE, "127.0.0.1", 8765, listen="127.0.0.1")
    store = hub.open_store()
    sites = {name: _hospital(folder, name, four, board) for name in SEVEN}
    for name, site in sites.items():
        store.add_member(name, identity_of(name), "hospital", site.public_key(), None)
    for name, role, signer in ((COMPANY, "company", CryptoSigner.generate_ed25519()), (BOARD, "drb", board)):
        store.add_member(name, identity_of(name), role, key_document(signer.public_key), None)
    heads = {name: Heads(site.folder, site.audit, name, site.signer()) for name, site in sites.items()}
    heads[ALLIANCE] = Heads(hub.folder, store.log, ALLIANCE, read_signer(hub.folder / "key.pem"))
    cast = Cast(hub, store, sites, board, heads)
    cast.add(hub.folder, "office", "office", ALLIANCE)
    cast.add(hub.folder, "release board", "drb", ALLIANCE)
    cast.add(hub.folder, "auditor", "auditor", ALLIANCE)
    cast.add(hub.folder, "scientist", "company", COMPANY)
    for name, site in sites.items():
        _enrolled(hub, name, site)
        roles: tuple[Role, ...] = ("steward", "irb") if name in SHARING else ("steward", "irb", "drb")
        for role in roles:
            cast.add(site.folder, role, role)
        say(
            Words(
                f"{name}: own key, own database, {len(roles)} accounts",
                f"{name}: 자기 키와 데이터베이스, 계정 {len(roles)}개",
            )
        )
    say(
        Words(
            f"{COMPANY} joins without a hospital; {' and '.join(SHARING)} share one data review board",
            f"{COMPANY}은(는) 병원 없이 가입. {', '.join(SHARING)}은(는) 데이터심의위원회 하나를 함께 씀",
        )
    )
    return cast


def _hospital(folder: Path, name: str, four: Mapping[str, Site], board: CryptoSigner) -> Site:
    """One of the seven: its folder, and its share of the patients of one of the four."""
    origin, half = SEVEN[name]
    site = create_site(folder / "seven" / name.lower().replace(" ", "_"), name)
    if name in SHARING:
        path = site.folder / "site.yaml"
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
        settings |= {"boards": {"drb": BOARD}, "board_keys": {BOARD: board.public_key.keyval["public"]}}
        path.write_text(yaml.safe_dump(settings, allow_unicode=True), encoding="utf-8")
        site = Site(site.folder)
    shutil.copy(four[origin].database, site.database)
    if half is not None:
        _keep_half(site.database, half)
    office = offices.office_of(origin)
    site.audit.append("standardised", file=office.file, half=half)
    return site


def _enrolled(hub: Hub, name: str, site: Site) -> None:
    """What `dure site enrol` leaves in a hospital's folder about its alliance, but for certificates."""
    hub_key = hub.keys(lambda peer: None).public.hex()
    known = Membership(ALLIANCE, name, "hospital", identity_of(name), hub.scheme, hub.host, hub.port, hub_key)
    write_private(site.folder / "member.json", json.dumps(asdict(known), ensure_ascii=False).encode())


def _keep_half(database: Path, half: int) -> None:
    with duckdb.connect(str(database)) as connection:
        tables = connection.execute(
            "SELECT table_name FROM information_schema.columns WHERE column_name = 'person_id' ORDER BY table_name"
        ).fetchall()
        for (table,) in sorted(tables, key=lambda row: row[0] == "person"):  # what points at a person goes first
            connection.execute(f'DELETE FROM "{table}" WHERE person_id % 2 <> ?', [half])
