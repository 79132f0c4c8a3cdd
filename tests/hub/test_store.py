"""The hub's store on both databases: the same promises, held by the same tests."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from dure.errors import FileMissing
from dure.hub.store import Store

KEY = {"keyid": "1", "keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": "00"}}


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: Any, tmp_path: Path) -> Any:
    """What `Store` is given after the star: its place, and the folder of its audit log."""
    if request.param == "sqlite":
        return (tmp_path / "hub.db",)
    url = request.getfixturevalue("postgres")
    store = Store(url)
    tables = ("member", "invitation", "serial", "study", "permit", "delivery", "run", "ledger", "event")
    for table in tables:
        store._database.write(f"DELETE FROM {table}")
    store.close()
    return url, tmp_path


def test_members_join_are_revoked_and_come_back(place: Any) -> None:
    store = Store(*place)
    store.add_member("서울", "m-1", "hospital", KEY, "certificate")
    store.add_member("Researcher", "m-2", "researcher", KEY, None)
    store.add_serial("AB", "서울")
    assert list(store.hospitals()) == ["서울"]
    assert store.serials() == {"AB": True}
    store.revoke("서울")
    assert store.hospitals() == {}
    assert store.serials() == {"AB": False}
    store.replace_member("서울", KEY, "another")
    assert list(store.hospitals()) == ["서울"]
    assert store.serials() == {"AB": False}, "old certificates stay revoked"
    with pytest.raises(Exception, match=r"(?i)unique|duplicate"):
        store.add_member("서울", "m-3", "hospital", KEY, None)
    store.close()


def test_an_invitation_is_used_once_however_many_try_at_once(place: Any) -> None:
    store = Store(*place)
    store.add_invitation("invited-1", "서울", "hospital", "2999-01-01T00:00:00+00:00")
    won: list[bool] = []
    others = [Store(*place) for _ in range(4)]
    threads = [threading.Thread(target=lambda one=one: won.append(one.use_invitation("invited-1"))) for one in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == [False, False, False, True]
    assert store.invitation("invited-2") is None
    for one in (*others, store):
        one.close()


def test_the_ledger_keeps_bytes_and_is_the_same_after_opening_again(place: Any) -> None:
    store, entry = Store(*place), bytes(range(256)) * 1000
    store.put_study("sha256:1", "{}", "submitted", "Researcher")
    store.put_study("sha256:1", "{}", "changed", "nobody")  # submitting again changes nothing
    store.put_run("run", "sha256:1")
    store.put_run("run", "sha256:1")
    ledger = store.ledger("run")
    ledger.write("model", None, b"first")
    ledger.write("model", None, entry)
    ledger.write("model", "서울", b"of one")
    store.close()
    store = Store(*place)
    ledger = store.ledger("run")
    assert ledger.read("model", None) == entry
    assert ledger.folds("model") == [entry, b"of one"]
    assert ledger.read("table", None) is None
    assert store.study("sha256:1") == ("{}", "submitted")
    assert store.submission("sha256:1")[1] == "Researcher"
    assert store.runs("sha256:1") == ["run"]
    store.close()


def test_a_transaction_that_fails_leaves_nothing(place: Any) -> None:
    store = Store(*place)
    store.put_study("sha256:1", "{}", "submitted")
    with pytest.raises(KeyError):
        half_a_change(store)
    assert store.study("sha256:1") == ("{}", "submitted")
    assert store.permits("sha256:1") == {}
    store.close()


def half_a_change(store: Store) -> None:
    with store.transaction():
        store.set_state("sha256:1", "permitted")
        store.put_permit("sha256:1", "서울", {"a": 1})
        raise KeyError


def test_permits_deliveries_and_events(place: Any) -> None:
    store = Store(*place)
    store.put_permit("sha256:1", "서울", {"a": 1})
    store.put_permit("sha256:1", "서울", None)
    assert store.permits("sha256:1") == {"서울": None}
    store.put_delivered("sha256:1", "서울")
    store.put_delivered("sha256:1", "서울")
    assert store.delivered("sha256:1") == {"서울"}
    threads = [threading.Thread(target=store.put_event, args=("sha256:1", "round", {"n": n})) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [event["number"] for event in store.events("sha256:1")] == list(range(1, 21))
    assert len(store.events("sha256:1", after=15)) == 5
    store.close()


def test_a_server_that_is_not_there_is_said_plainly() -> None:
    pytest.importorskip("pg8000", reason="PostgreSQL needs the extra 'postgres'")
    with pytest.raises(FileMissing, match=r"postgresql://127\.0\.0\.1:1/dure"):
        Store("postgresql://secret:word@127.0.0.1:1/dure")


def test_what_one_process_reads_in_a_transaction_no_other_changes_before_its_end(place: Any) -> None:
    """The office's command and the hub's service write to one store."""
    order: list[str] = []
    store, second = Store(*place), Store(*place)

    def other() -> None:
        with second.transaction():
            order.append("second")

    with store.transaction():
        waiting = threading.Thread(target=other, daemon=True)
        waiting.start()
        waiting.join(1)
        order.append("first")
    waiting.join(20)
    assert order == ["first", "second"]
    second.close()
    store.close()
