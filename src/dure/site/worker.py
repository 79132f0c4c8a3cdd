"""A run's own process inside a hospital: it answers the run's questions within the memory, cores and time allowed.

One process per study keeps two studies apart: what one needs too much of ends that process, not the service. It is
forked from a server that has loaded what runners need, so that a first round does not wait for imports.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import resource
import threading
import time
from importlib.metadata import entry_points
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from dure.errors import LimitReached, SiteFailed
from dure.federation.messages import Answer, error_data
from dure.federation.secure_sum.exchange import read_question
from dure.language import Words
from dure.site.runner import Runner
from dure.site.settings import Resources, Site
from dure.study.method import installed_methods

CONTEXT = multiprocessing.get_context("forkserver")
ORPHAN = 0.1
"""Seconds after which a worker notices that its service was killed."""
BYTES = {"memory": Words("memory", "메모리"), "time": Words("time", "시간")}


def preload() -> None:
    """Say what workers need loaded; before the first one starts."""
    methods = [entry.module for entry in entry_points(group="dure.methods")]
    CONTEXT.set_forkserver_preload([__name__, *methods])


def prepare() -> None:
    """Start the server that workers are forked from; a later fork takes milliseconds."""
    process = CONTEXT.Process(target=_nothing)
    process.start()
    process.join()


class Worker:
    """The process of one study. Questions to it queue; it is started with the first and again after a crash."""

    def __init__(self, folder: Path, hospital: str, resources: Resources) -> None:
        self._folder, self._hospital, self._resources = folder, hospital, resources
        self._lock = threading.Lock()
        self._process: Any = None
        self._line: Connection | None = None
        self._stopped = False

    def answer(self, message: bytes) -> bytes:
        """The reply's bytes; an error reply where the process passed a limit or died."""
        with self._lock:
            line = self._running()
            try:
                line.send_bytes(message)
                if not line.poll(self._resources.seconds):
                    self._end()
                    return self._no(message, "time", f"{self._resources.minutes:g} min")
                reply = line.recv_bytes()
            except (EOFError, OSError):
                code = self._end()
                return self._no(message, "memory", self._resources.memory, died=code)
        if not reply:
            return self._no(message, "memory", self._resources.memory)
        return reply

    def stop(self) -> None:
        """End the process at once, also in the middle of a question; its memory is in the hospital's store."""
        self._stopped = True
        process = self._process
        if process is not None and process.is_alive():
            process.kill()

    def close(self) -> None:
        with self._lock:
            self._end()

    def _running(self) -> Connection:
        if self._stopped:  # another took its place: two of a study would write into the same files
            raise EOFError
        if self._process is None or not self._process.is_alive() or self._line is None:
            self._end()
            here, there = CONTEXT.Pipe()
            self._process = CONTEXT.Process(target=_work, args=(there, str(self._folder), self._resources), daemon=True)
            self._process.start()
            there.close()
            self._line = here
        return self._line

    def _end(self) -> int | None:
        if self._line is not None:
            self._line.close()
            self._line = None
        if self._process is None:
            return None
        self._process.join(0.2)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        code: int | None = self._process.exitcode
        self._process = None
        return code

    def _no(self, message: bytes, what: str, limit: str, died: int | None = None) -> bytes:
        step = read_question(message).step
        error: Any = LimitReached(hospital=self._hospital, step=step, resource=BYTES[what], limit=limit)
        if self._stopped or (died is not None and died not in (-6, -9, -11)):  # not what lack of memory looks like
            error = SiteFailed(
                hospital=self._hospital,
                step=step,
                problem=Words("Its process has ended.", "처리 프로세스가 끝났습니다."),
                hint=Words(
                    "The hospital's log names it; the run goes on by itself.",
                    "병원 로그를 보십시오. 실행은 저절로 이어집니다.",
                ),
            )
        return Answer(self._hospital, "error", error=error_data(error)).to_bytes()


def _nothing() -> None:
    """The first fork: it makes the server load this module."""


def _work(line: Connection, folder: str, resources: Resources) -> None:
    """In the process: take questions until the service closes the line; an empty reply says 'out of memory'."""
    threading.Thread(target=_end_with_service, args=(os.getppid(),), daemon=True).start()
    try:
        _limit(resources)
        with threadpool_limits(resources.cores):
            runner = Runner(Site(Path(folder)), installed_methods())
            while True:
                line.send_bytes(runner.answer(line.recv_bytes()))
    except MemoryError:
        line.send_bytes(b"")
    except (EOFError, OSError, KeyboardInterrupt):
        return  # the service is gone; a reply is in the hospital's store and is sent when it is asked for again


def _end_with_service(server: int) -> None:
    """End at once when the server that forked this process does, as it does with the service, however that ends: two
    workers of one study, an old and a new one, must not write into the same files."""
    while os.getppid() == server:
        time.sleep(ORPHAN)
    os._exit(1)


def _limit(resources: Resources) -> None:
    if resources.bytes:
        resource.setrlimit(resource.RLIMIT_DATA, (resources.bytes, resources.bytes))
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        start = os.getpid() % len(cores)
        chosen = [cores[(start + place) % len(cores)] for place in range(min(resources.cores, len(cores)))]
        os.sched_setaffinity(0, chosen)
    with contextlib.suppress(OSError):
        os.nice(5)
