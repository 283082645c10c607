"""The line that fails: if it did not fail as it says, the judge of what is lost would judge nothing."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.support.fault_proxy import FaultProxy, LineFault


class Echo:
    """A server that sends back what it gets."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=self._echo, args=self._listener.accept()[:1], daemon=True).start()

    def _echo(self, connection: socket.socket) -> None:
        with suppress(OSError), connection:
            while data := connection.recv(1 << 16):
                connection.sendall(data)

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def line() -> Iterator[FaultProxy]:
    echo = Echo()
    proxy = FaultProxy(echo.port)
    yield proxy
    proxy.close()
    echo.close()


def connect(line: FaultProxy, timeout: float = 20) -> socket.socket:
    return socket.create_connection(("127.0.0.1", line.port), timeout)


def receive(connection: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length and (piece := connection.recv(length - len(data))):
        data += piece
    return data


def test_a_good_line_changes_nothing(line: FaultProxy) -> None:
    with connect(line) as connection:
        sent = bytes(range(256)) * 4000
        threading.Thread(target=connection.sendall, args=(sent,), daemon=True).start()
        assert receive(connection, len(sent)) == sent
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""
    assert line.accepted == 1


def test_a_cut_line_ends_what_is_open_and_refuses_what_is_new(line: FaultProxy) -> None:
    with connect(line) as connection:
        connection.sendall(b"a")
        assert receive(connection, 1) == b"a"
        line.cut()
        assert connection.recv(1) == b""
    with pytest.raises(ConnectionRefusedError):
        connect(line)
    line.mend()
    with connect(line) as connection:
        connection.sendall(b"b")
        assert receive(connection, 1) == b"b"


def test_a_reset_comes_in_the_middle_of_the_stream(line: FaultProxy) -> None:
    line.script([None, LineFault("reset", after=1000)])
    with connect(line) as good, connect(line) as bad:
        good.sendall(b"g" * 5000)
        assert receive(good, 5000) == b"g" * 5000
        bad.sendall(b"b" * 5000)
        with pytest.raises(ConnectionResetError):
            receive(bad, 5000)


def test_a_half_open_line_stays_open_and_loses_what_is_sent(line: FaultProxy) -> None:
    with connect(line, 0.5) as connection:
        line.inject(LineFault("swallow"))
        connection.sendall(b"lost")
        with pytest.raises(TimeoutError):
            connection.recv(1)
        line.mend()
        with pytest.raises(ConnectionResetError):
            connection.recv(1)


def test_one_byte_a_second_and_a_narrow_line_lose_nothing(line: FaultProxy) -> None:
    with connect(line) as connection:
        line.inject(LineFault("trickle"))
        began = time.monotonic()
        connection.sendall(b"abcdef")
        assert receive(connection, 2) == b"ab"
        assert time.monotonic() - began >= 1
        line.inject(LineFault("narrow", amount=20_000))
        began = time.monotonic()
        sent = b"n" * 10_000
        connection.sendall(sent)
        assert receive(connection, 4 + len(sent)) == b"cdef" + sent
        assert time.monotonic() - began >= 0.4
        line.mend()


def test_a_slow_line_answers_later(line: FaultProxy) -> None:
    line.inject(LineFault("delay", amount=0.2))
    with connect(line) as connection:
        began = time.monotonic()
        connection.sendall(b"x")
        assert receive(connection, 1) == b"x"
        assert time.monotonic() - began >= 0.4
