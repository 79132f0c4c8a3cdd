"""NVIDIA FLARE's communicator as a wire: named peers over mTLS, TCP or gRPC, that reconnect by themselves.

It is the layer on which FLARE's cells stand. Cells would route messages from one hospital to another, open listeners
of their own and decode objects; between hospitals that do not trust each other none of that is wanted, so this takes
only connections, identities, heartbeats and frames of bytes.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

# FLARE sets these too, but only once its driver is made; gRPC reads them when it is first imported.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "False")
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from dure.errors import MissingPackage
from dure.federation.frames import LARGEST_FRAME, Payload, Unreachable
from dure.language import Words

try:
    from nvflare.fuel.f3.cellnet.identity import CellIdentityResolver
    from nvflare.fuel.f3.comm_config import CommConfigurator
    from nvflare.fuel.f3.comm_error import CommError
    from nvflare.fuel.f3.communicator import Communicator
    from nvflare.fuel.f3.connection import Connection
    from nvflare.fuel.f3.drivers.driver import Driver
    from nvflare.fuel.f3.drivers.driver_params import DriverParams
    from nvflare.fuel.f3.drivers.net_utils import parse_url
    from nvflare.fuel.f3.endpoint import Endpoint, EndpointMonitor, EndpointState
    from nvflare.fuel.f3.message import Message, MessageReceiver
    from nvflare.fuel.f3.sfm.conn_manager import Mode

    from dure.federation.flare_driver import Admits, TlsDriver
except ImportError:
    raise MissingPackage(
        purpose=Words("Running between hospitals", "병원 사이의 실행"),
        package="nvflare",
        command='pip install "dure[flare]"',
    ) from None

Scheme = Literal["tcp", "grpc"]
APPLICATION = 1
AT_ONCE = 32
"""Frames of one peer being worked on; FLARE has a hundred threads for all."""
HUB = "hub"
"""The hub's name on the wire; members are named by their certificates."""


@dataclass(frozen=True)
class Credentials:
    """Files of PEM: the alliance's authority, and this process's own certificate and key."""

    authority: Path
    certificate: Path
    key: Path


class FlareWire(MessageReceiver, EndpointMonitor):  # type: ignore[misc]
    """Frames between this process and its peers (`dure.federation.calls.Wire`).

    `name` is this end's, and the common name of its certificate; a peer is known by the name in its certificate.
    """

    def __init__(self, name: str, credentials: Credentials, scheme: Scheme, hub_identity: str = HUB) -> None:
        _configure()
        self.name, self.scheme = name, scheme
        self._driver: Any = None
        self._handling: Counter[str] = Counter()
        self._lock = threading.Lock()
        self.on_frame: Callable[[str, Payload], None] = lambda peer, frame: None
        self.on_connected: Callable[[str], None] = lambda peer: None
        self.on_disconnected: Callable[[str], None] = lambda peer: None
        properties = {
            DriverParams.CA_CERT.value: str(credentials.authority),
            DriverParams.SERVER_CERT.value: str(credentials.certificate),
            DriverParams.SERVER_KEY.value: str(credentials.key),
            DriverParams.CLIENT_CERT.value: str(credentials.certificate),
            DriverParams.CLIENT_KEY.value: str(credentials.key),
        }
        resolver = CellIdentityResolver(name, {HUB: hub_identity}, {name: name})
        self._communicator = Communicator(Endpoint(name, conn_props=properties), resolver)
        self._communicator.register_message_receiver(APPLICATION, self)
        self._communicator.register_monitor(self)

    def listen(self, host: str, port: int, admits: Admits = lambda serial: True) -> None:
        """Open the one port; `admits` sees serial numbers with TCP, gRPC does not show them."""
        self._add(Mode.PASSIVE, host, port, admits)

    def connect(self, host: str, port: int) -> None:
        """Connect outwards, and again whenever the connection is lost."""
        self._add(Mode.ACTIVE, host, port, lambda serial: True)

    def send(self, peer: str, frame: bytes) -> None:
        """Raises Unreachable where there is no connection, or it is lost while sending."""
        try:
            self._communicator.send(Endpoint(peer), APPLICATION, Message({}, frame))
        except CommError as error:
            raise Unreachable(peer, error.code) from None

    def drop(self, peer: str, but_newest: bool = False) -> None:
        """Close the connections to a peer: all of them, or those that an earlier process of it left half open."""
        connections = self._communicator.conn_manager.get_connections(peer) or []
        for connection in list(connections)[: len(connections) - but_newest]:
            with contextlib.suppress(Exception):  # closed meanwhile, in any of the drivers' ways
                connection.conn.close()

    @property
    def problem(self) -> str:
        """Why the last attempt to connect failed, or the last connection ended; empty where nothing is known."""
        return str(getattr(self._driver, "problem", ""))

    def stop(self) -> None:
        self._communicator.stop()

    # ── FLARE calls these ──

    def process_message(self, endpoint: Endpoint, connection: Connection, app_id: int, message: Message) -> None:
        if not isinstance(message.payload, bytes | bytearray | memoryview):
            return
        with self._lock:
            if self._handling[endpoint.name] >= AT_ONCE:
                return  # it sends again; one peer must not hold all the threads that serve everybody
            self._handling[endpoint.name] += 1
        try:
            self.on_frame(endpoint.name, message.payload)
        finally:
            with self._lock:
                self._handling[endpoint.name] -= 1

    def state_change(self, endpoint: Endpoint) -> None:
        (self.on_connected if endpoint.state == EndpointState.READY else self.on_disconnected)(endpoint.name)

    def _add(self, mode: Mode, host: str, port: int, admits: Admits) -> None:
        parameters = parse_url(f"{'grpcs' if self.scheme == 'grpc' else 'stcp'}://{host}:{port}")
        self._driver = _driver(self.scheme, admits)
        self._communicator.add_connector_advanced(self._driver, mode, parameters, True)
        self._communicator.start()


def _driver(scheme: Scheme, admits: Admits) -> Driver:
    if scheme == "tcp":
        return TlsDriver(admits)
    from nvflare.fuel.f3.drivers.grpc_driver import GrpcDriver

    return GrpcDriver()


def _keep_buffers() -> None:
    """Have glibc keep memory of a part's size instead of asking the system for it anew for every frame.

    A round of 40 MB for four hospitals took 30 % more processor time without.
    """
    with contextlib.suppress(OSError, AttributeError):  # not glibc
        library = ctypes.CDLL(None)
        library.mallopt(MMAP_THRESHOLD, 4 << 20)
        library.mallopt(TRIM_THRESHOLD, 32 << 20)


MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1
"""Numbers of glibc's <malloc.h>."""


def _configure() -> None:
    """FLARE's settings, given here instead of in a file that it would look for."""
    _keep_buffers()
    frame = LARGEST_FRAME + (1 << 16)
    grpc: list[tuple[str, Any]] = [
        ("grpc.max_send_message_length", frame),
        ("grpc.max_receive_message_length", frame),
        ("grpc.keepalive_time_ms", 15_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.so_reuseport", 0),
    ]
    CommConfigurator._configuration = {
        "heartbeat_interval": 15,
        "streaming_send_timeout": 120.0,  # a part on a slow line; dead peers are noticed by TCP itself
        "grpc": {"max_workers": 1000, "options": grpc},
    }
    CommConfigurator._config_loaded = True
    # FLARE names addresses and headers at INFO; a lost connection is told by this project's own log.
    logging.getLogger("nvflare").setLevel(logging.CRITICAL)
