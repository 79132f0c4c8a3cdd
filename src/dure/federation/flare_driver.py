"""FLARE's TCP driver with what an open port needs: no handshake can block others, frames are bounded, cuts noticed.

The driver it stands on completes each TLS handshake inside `accept`, so that one silent caller, with no certificate
at all, keeps every hospital out; it waits for a dead peer as long as TCP does; and it waits for room to send by
`select`, which takes no file numbered 1024 or higher, so that a thousand open connections silence the next one. Nothing
else is changed.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import time
from collections.abc import Callable
from socketserver import BaseRequestHandler, TCPServer, ThreadingTCPServer
from typing import Any

from nvflare.fuel.f3.comm_error import CommError
from nvflare.fuel.f3.drivers.connector_info import ConnectorInfo
from nvflare.fuel.f3.drivers.driver_params import DriverParams
from nvflare.fuel.f3.drivers.net_utils import get_ssl_context
from nvflare.fuel.f3.drivers.socket_conn import SocketConnection
from nvflare.fuel.f3.drivers.tcp_driver import TcpDriver
from nvflare.fuel.f3.sfm.prefix import PREFIX_LEN, Prefix

from dure.federation.frames import LARGEST_FRAME

HANDSHAKE = 10.0
"""Seconds a caller has for its handshake."""
SILENT = 20_000
"""Milliseconds after which unacknowledged bytes end a connection (TCP_USER_TIMEOUT)."""

CLOSED = "the hub closed the connection; it may not accept this certificate"

Admits = Callable[[str], bool]
"""Whether a certificate, by its serial number (upper-case hex as OpenSSL prints it), may connect."""


class TlsDriver(TcpDriver):  # type: ignore[misc]
    """mTLS over TCP. `admits` is asked after each handshake a listener completes."""

    def __init__(self, admits: Admits = lambda serial: True) -> None:
        super().__init__()
        self.admits = admits
        self.problem = ""

    def listen(self, connector: ConnectorInfo) -> None:
        self.connector = connector
        self.server = _Server(self, connector)
        self.server.serve_forever()

    def shutdown(self) -> None:
        super().shutdown()
        if self.server:
            self.server.server_close()

    def connect(self, connector: ConnectorInfo) -> None:
        self.connector = connector
        params = connector.params
        context = get_ssl_context(params, ssl_server=False)
        address = (params[DriverParams.HOST.value], int(params[DriverParams.PORT.value]))
        try:
            plain = socket.create_connection(address, timeout=HANDSHAKE)
            _notice_cuts(plain)
            with plain, context.wrap_socket(plain) as secured:
                secured.settimeout(None)
                connection = _Bounded(secured, connector, True)
                self.problem = ""
                self.add_connection(connection)
                if connector.stopped.is_set():  # while it came up: whoever closed all connections did not see it
                    connection.close()
                connection.read_loop()
                self.problem = connection.problem or CLOSED
                self.close_connection(connection)
        except OSError as error:
            self.problem = getattr(error, "reason", None) or error.strerror or type(error).__name__
            raise


class _Bounded(SocketConnection):  # type: ignore[misc]
    """A connection that ends when its peer announces a frame larger than any of ours, before memory is given to it."""

    problem = ""

    def _send_with_timeout(self, frame: Any, timeout_sec: float) -> None:
        """What it overrides, waiting by `poll`: any number of files may be open."""
        view, deadline, room = memoryview(frame), time.monotonic() + timeout_sec, select.poll()
        room.register(self.sock, select.POLLOUT)
        while view:
            left = deadline - time.monotonic()
            if left <= 0 or not room.poll(1000 * left):
                raise CommError(CommError.TIMEOUT, f"no room to send for {timeout_sec} seconds")
            view = view[self.sock.send(view) :]

    def read_into(self, buffer: Any, offset: int, length: int) -> None:
        try:
            super().read_into(buffer, offset, length)
        except ssl.SSLError as error:  # with TLS 1.3 a refused certificate is told after the handshake
            self.problem = str(error.reason or error)
            raise

    def read_frame(self) -> bytearray:
        prefix = bytearray(PREFIX_LEN)
        self.read_into(prefix, 0, PREFIX_LEN)
        length = Prefix.from_bytes(prefix).length
        if not PREFIX_LEN <= length <= LARGEST_FRAME + (1 << 16):
            raise CommError(CommError.BAD_DATA, "a frame of impossible length")
        frame = bytearray(length)
        frame[:PREFIX_LEN] = prefix
        if length > PREFIX_LEN:
            self.read_into(frame, PREFIX_LEN, length - PREFIX_LEN)
        return frame


class _Server(ThreadingTCPServer):
    allow_reuse_address = True
    request_queue_size = 128  # five, the default, makes callers wait for seconds whenever a few come at once
    daemon_threads = True
    block_on_close = False

    def __init__(self, driver: TlsDriver, connector: ConnectorInfo) -> None:
        self.driver, self.connector = driver, connector
        self.ssl_context = get_ssl_context(connector.params, ssl_server=True)
        address = (connector.params[DriverParams.HOST.value], int(connector.params[DriverParams.PORT.value]))
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        TCPServer.__init__(self, address, _Handshake)


class _Handshake(BaseRequestHandler):
    """In the caller's own thread: handshake within its time, certificate admitted, then FLARE's loop."""

    server: _Server

    def handle(self) -> None:
        plain: Any = self.request
        plain.settimeout(HANDSHAKE)
        _notice_cuts(plain)
        try:
            secured = self.server.ssl_context.wrap_socket(plain, server_side=True)
        except (OSError, ValueError):  # no certificate, a foreign one, no TLS at all, or nothing said in time
            return
        certificate = secured.getpeercert() or {}
        if not self.server.driver.admits(str(certificate.get("serialNumber", ""))):
            secured.close()
            return
        secured.settimeout(None)
        connection, driver = _Bounded(secured, self.server.connector, True), self.server.driver
        try:
            driver.add_connection(connection)
            connection.read_loop()
            driver.close_connection(connection)
        finally:
            with contextlib.suppress(OSError, ssl.SSLError):
                secured.close()


def _notice_cuts(plain: socket.socket) -> None:
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3), ("TCP_USER_TIMEOUT", SILENT)):
        if hasattr(socket, option):  # Linux has all four
            plain.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
