"""Keys of other hospitals: pinned when first seen, refused and logged when they change, shown for the telephone."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from dure.cli.commands import app
from dure.errors import NotSignedIn
from dure.guard.accounts import Accounts
from dure.site.peers import Peers, fingerprint
from dure.site.settings import Site, create_site

ONE, OTHER = bytes(range(32)), bytes(32)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return create_site(tmp_path / "site", "한빛병원")


def test_a_key_is_pinned_when_it_is_first_seen_and_holds_afterwards(site: Site) -> None:
    assert Peers(site).hold({"Seoul": ONE})
    assert Peers(site).hold({"Seoul": ONE, "Busan": OTHER})
    assert Peers(Site(site.folder)).known() == {"Seoul": ONE, "Busan": OTHER}
    assert Peers(site).key("Seoul") == ONE
    assert Peers(site).key("Jeju") is None


def test_another_key_for_a_known_name_is_refused_logged_and_pins_nobody(site: Site) -> None:
    assert Peers(site).hold({"Seoul": ONE})
    assert not Peers(site).hold({"Seoul": OTHER, "Busan": ONE})
    assert Peers(site).known() == {"Seoul": ONE}
    last = list(site.audit.entries())[-1]
    assert (last["event"], last["hospital"]) == ("key changed", "Seoul")
    assert (last["pinned"], last["shown"]) == (fingerprint(ONE), fingerprint(OTHER))


def test_a_closed_list_takes_no_new_hospital_and_says_so_in_the_log(site: Site) -> None:
    Peers(site).hold({"Seoul": ONE})
    CliRunner().invoke(app, ["site", "peers", str(site.folder), "--close"])
    again = Site(site.folder)
    assert Peers(again).closed
    assert Peers(again).hold({"Seoul": ONE})
    assert not Peers(again).hold({"Seoul": ONE, "Ghost": OTHER})
    assert Peers(again).known() == {"Seoul": ONE}
    assert [entry["event"] for entry in again.audit.entries()][-2:] == ["list closed", "hospitals not on the list"]
    CliRunner().invoke(app, ["site", "peers", str(site.folder), "--open"])
    assert Peers(Site(site.folder)).hold({"Seoul": ONE, "Ghost": OTHER})


def test_nobody_closes_or_opens_the_list_of_a_folder_with_accounts_without_signing_in(site: Site) -> None:
    Accounts(site.folder).add("Kim", "steward", "seven blue ladders lean on the tower")
    said = CliRunner().invoke(app, ["site", "peers", str(site.folder), "--close"])
    assert said.exit_code != 0
    assert isinstance(said.exception, NotSignedIn)
    assert not Peers(site).closed


def test_the_command_shows_fingerprints_to_compare(site: Site) -> None:
    Peers(site).hold({"Seoul": ONE})
    said = CliRunner().invoke(app, ["site", "peers", str(site.folder)]).output
    own = fingerprint(bytes.fromhex(site.public_key()["keyval"]["public"]))
    assert "Seoul" in said
    assert fingerprint(ONE) in said
    assert own in said
