"""The smallest job of FLARE's own, for comparison: a controller that asks all clients, an executor that echoes.

`python bench/engine_job.py FOLDER ROUNDS SIZE` runs it once in FLARE's simulator with four clients, each in a process
of its own, and prints one line of JSON. The simulator uses TCP on localhost without TLS.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    sys.path.append(sys.path.pop(0))  # this folder last: its statistics.py would pass for the standard library's

import contextlib
import json
import os
import signal
import subprocess
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from nvflare.apis.controller_spec import Task
from nvflare.apis.executor import Executor
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.impl.controller import Controller
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.apis.signal import Signal

CLIENTS = 4
REQUEST_INTERVAL = 0.05
"""Seconds between a client's questions whether there is something to do; FLARE's default is 2."""
LIMIT = 180.0


class Rounds(Controller):  # type: ignore[misc]
    """Asks all clients, round after round, and writes down when each round was over."""

    def __init__(self, rounds: int, size: int, written: str) -> None:
        super().__init__(task_check_period=0.01)
        self.rounds, self.size, self.written = rounds, size, written

    def start_controller(self, fl_ctx: FLContext) -> None:
        self.times = [time.time()]

    def control_flow(self, abort_signal: Signal, fl_ctx: FLContext) -> None:
        body = os.urandom(self.size)
        self.times = [time.time()]
        for _ in range(self.rounds):
            data = Shareable()
            data["body"] = body
            self.same = 0
            self.broadcast_and_wait(
                Task("echo", data, result_received_cb=lambda client_task, fl_ctx: self._count(client_task, body)),
                fl_ctx,
                min_responses=CLIENTS,
                abort_signal=abort_signal,
            )
            assert self.same == CLIENTS, f"{self.same} same replies"
            self.times.append(time.time())
        Path(self.written).write_text(json.dumps(self.times))

    def _count(self, client_task: Any, body: bytes) -> None:
        self.same += client_task.result["body"] == body

    def stop_controller(self, fl_ctx: FLContext) -> None:
        return


class Echo(Executor):  # type: ignore[misc]
    def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        reply = make_reply(ReturnCode.OK)
        reply["body"] = shareable["body"]
        return reply


def run(folder: Path, rounds: int, size: int) -> dict[str, float]:
    """Seconds until the first round, seconds of a round, seconds of the whole job; raises RuntimeError."""
    folder.mkdir(parents=True)
    command = [sys.executable, __file__, str(folder), str(rounds), str(size)]
    # In a group of its own: the simulator's clients are processes that it starts.
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=folder, start_new_session=True
    )
    try:
        said, _ = process.communicate(timeout=LIMIT)
    finally:
        stop_group(process.pid)
        process.wait()
    lines = [line for line in said.decode(errors="replace").splitlines() if line.startswith('{"until_first')]
    if not lines:
        raise RuntimeError(f"the job did not run:\n{said.decode(errors='replace')[-3000:]}")
    found: dict[str, float] = json.loads(lines[-1])
    return found


def stop_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def main() -> None:
    folder, rounds, size = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    from engine_job import Echo as EchoExecutor  # by the name under which the job finds them
    from engine_job import Rounds as RoundsController
    from nvflare.job_config.api import FedJob

    written = folder / "times.json"
    job = FedJob("echo", min_clients=CLIENTS)
    job.to_server(RoundsController(rounds, size, str(written)))
    job.to_server({"server": {"task_request_interval": REQUEST_INTERVAL}})
    job.to_clients(EchoExecutor(), tasks=["echo"])
    job.to_clients({"default_task_fetch_interval": REQUEST_INTERVAL})
    began = time.time()
    job.simulator_run(str(folder / "workspace"), n_clients=CLIENTS, threads=CLIENTS, log_config="concise")
    ended = time.time()
    times = json.loads(written.read_text())
    seconds = sorted(end - start for start, end in pairwise(times[1:]))
    middle = seconds[len(seconds) // 2]
    print(json.dumps({"until_first": times[1] - began, "round": middle, "all": ended - began}), flush=True)


if __name__ == "__main__":
    main()
