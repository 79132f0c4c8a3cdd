"""Hypothesis for the whole suite: no deadlines, since a loaded machine is no error; the same examples in CI."""

from __future__ import annotations

import gc
import hashlib
import json
import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, settings

from dure.guard import passwords

settings.register_profile(
    "dure",
    deadline=None,
    derandomize=bool(os.environ.get("CI")),
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("dure")

ORACLE = Path(__file__).parent / "oracle"
FILES = Path("/proc/self/fd")
MANY = 256
"""Open files after which a test process looks for those that nobody holds any more: many systems allow it 1,024."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol() -> Iterator[None]:
    """Hospitals inside the test's own process leave their databases to the garbage collector."""
    try:
        return (yield)
    finally:
        if FILES.is_dir() and len(list(FILES.iterdir())) > MANY:
            gc.collect()


class Oracle:
    """Numbers that R gave (`make oracle`), and the tables it gave them for."""

    @staticmethod
    def numbers(name: str) -> Any:
        """What `tests/oracle/<name>.R` wrote; fails if the script or its tables have changed since."""
        stored = json.loads((ORACLE / f"{name}.json").read_text(encoding="utf-8"))
        for file, digest in stored["of"].items():
            assert hashlib.sha256((ORACLE / file).read_bytes()).hexdigest() == digest, (
                f"tests/oracle/{file} has changed since its numbers were stored: run `make oracle`"
            )
        return stored["numbers"]

    @staticmethod
    def table(name: str) -> pl.DataFrame:
        """`tests/oracle/data/<name>.csv`."""
        return pl.read_csv(ORACLE / "data" / f"{name}.csv", infer_schema_length=None)


@pytest.fixture(scope="session")
def oracle() -> Oracle:
    return Oracle()


FULL_COST = {name: getattr(passwords, name) for name in ("MEMORY", "PASSES")}
"""What an Argon2id hash costs people."""


@pytest.fixture(scope="session", autouse=True)
def light_passwords() -> Iterator[None]:
    """Argon2id as it is, with little memory: tests sign in thousands of times. Those about its cost keep it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passwords, "MEMORY", 64)
        patch.setattr(passwords, "PASSES", 1)
        yield


@pytest.fixture
def full_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory and passes that people's passwords get."""
    for name, value in FULL_COST.items():
        monkeypatch.setattr(passwords, name, value)


BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PostgreSQL server of this test's own, on loopback; its URL."""
    pytest.importorskip("pg8000", reason="PostgreSQL needs the extra 'postgres'")
    if not BINARIES:
        pytest.skip("no PostgreSQL server on this machine (Debian: apt-get install postgresql)")
    binaries, folder = BINARIES[-1].parent, tmp_path_factory.mktemp("postgres")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    before: list[str] = []
    if os.geteuid() == 0:  # the server refuses to run as root
        if not any(user.pw_name == "postgres" for user in pwd.getpwall()):
            pytest.skip("as root, a user 'postgres' is needed to run PostgreSQL")
        account = pwd.getpwnam("postgres")
        home = Path("/var/tmp") / f"dure-postgres-{port}"
        home.mkdir(mode=0o700)
        os.chown(home, account.pw_uid, account.pw_gid)
        before, folder = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"], home
    data = folder / "data"
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": "/", "check": True}
    try:
        subprocess.run([*before, binaries / "initdb", "-D", data, "-A", "trust", "-U", "dure"], **quiet)
        options = f"-p {port} -h 127.0.0.1 -k {folder}"
        command = [*before, binaries / "pg_ctl", "-D", data, "-w", "-o", options, "-l", folder / "log"]
        subprocess.run([*command, "start"], **quiet)
        try:
            subprocess.run(
                [*before, binaries / "createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "dure", "dure"], **quiet
            )
            yield f"postgresql://dure@127.0.0.1:{port}/dure"
        finally:
            subprocess.run([*before, binaries / "pg_ctl", "-D", data, "-m", "immediate", "stop"], **quiet)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
