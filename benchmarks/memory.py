"""Memory of the edge while many associations store one large multi-frame instance each, all at the same time.

``python -m benchmarks.memory [ASSOCIATIONS] [MEGABYTES]``; 64 and 500 unless said otherwise. The data sets are made
while they are sent. The edge is one of its own with its default settings and its line to the cloud cut, so its disk
needs room for everything (32 GB). Printed are its resident set size before, and the largest while it receives.
"""

import shutil
import socket
import struct
import sys
import tempfile
import threading
import time
from pathlib import Path
from uuid import uuid4

import psutil

from benchmarks.edge import lone_edge
from benchmarks.measure import console

MULTI_FRAME = "1.2.840.10008.5.1.4.1.1.7.2"
EXPLICIT = "1.2.840.10008.1.2.1"
FRAGMENT = 128 * 1024 - 6
SAMPLE_SECONDS = 0.05


def element(group: int, number: int, vr: str, value: bytes) -> bytes:
    """An element in explicit VR little endian, with a short header."""
    value += (b"\0" if vr == "UI" else b" ") * (len(value) % 2)
    return struct.pack("<HH2sH", group, number, vr.encode(), len(value)) + value


def pdu(kind: int, body: bytes) -> bytes:
    """A PDU."""
    return struct.pack(">BBI", kind, 0, len(body)) + body


def item(kind: int, content: bytes) -> bytes:
    """An item of an association request."""
    return struct.pack(">BBH", kind, 0, len(content)) + content


def associate_request(called: str) -> bytes:
    """Asks for multi-frame secondary capture."""
    context = bytes((1, 0, 0, 0)) + item(0x30, MULTI_FRAME.encode()) + item(0x40, EXPLICIT.encode())
    body = struct.pack(">HH", 1, 0) + called.encode().ljust(16) + b"BENCHMARK".ljust(16) + bytes(32)
    body += item(0x10, b"1.2.840.10008.3.1.1.1") + item(0x20, context)
    return pdu(1, body + item(0x50, item(0x51, struct.pack(">I", 131072)) + item(0x52, b"1.2.3.4")))


def store_request(uid: str) -> bytes:
    """A C-STORE request, as a P-DATA-TF."""

    def command(number: int, value: bytes) -> bytes:
        value += b"\0" * (len(value) % 2)
        return struct.pack("<HHI", 0, number, len(value)) + value

    elements = (
        command(0x0002, MULTI_FRAME.encode())
        + command(0x0100, struct.pack("<H", 0x0001))
        + command(0x0110, struct.pack("<H", 1))
        + command(0x0700, bytes(2))
        + command(0x0800, bytes(2))
        + command(0x1000, uid.encode())
    )
    return fragment(command(0, struct.pack("<I", len(elements))) + elements, control=3)


def fragment(data: bytes, *, control: int) -> bytes:
    """One presentation data value as a P-DATA-TF."""
    return pdu(4, struct.pack(">IBB", len(data) + 2, 1, control) + data)


def data_set_head(uid: str, pixels: int) -> bytes:
    """Everything up to the pixels."""
    frames = pixels // (512 * 512)
    return b"".join(
        (
            element(0x0008, 0x0016, "UI", MULTI_FRAME.encode()),
            element(0x0008, 0x0018, "UI", uid.encode()),
            element(0x0010, 0x0020, "LO", b"BENCHMARK"),
            element(0x0020, 0x000D, "UI", f"{uid}.1".encode()),
            element(0x0020, 0x000E, "UI", f"{uid}.2".encode()),
            element(0x0028, 0x0008, "IS", str(frames).encode()),
            struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, pixels),
        )
    )


def store(port: int, called: str, megabytes: int, together: threading.Barrier, statuses: list[int]) -> None:
    """Stores one instance when all others are ready to."""
    uid = f"2.25.{uuid4().int >> 8}"
    frames = megabytes * 1_000_000 // (512 * 512)
    pixels = frames * 512 * 512
    with socket.create_connection(("127.0.0.1", port)) as peer:
        peer.sendall(associate_request(called))
        if read_pdu(peer)[0] != 2:
            raise RuntimeError("the edge refused an association")
        together.wait()
        peer.sendall(store_request(uid) + fragment(data_set_head(uid, pixels), control=0))
        full = fragment(bytes(FRAGMENT), control=0)
        for _ in range(pixels // FRAGMENT):
            peer.sendall(full)
        peer.sendall(fragment(bytes(pixels % FRAGMENT), control=2))
        _, body = read_pdu(peer)
        statuses.append(struct.unpack("<H", body[body.index(b"\0\0\0\x09\x02\0\0\0") + 8 :][:2])[0])
        peer.sendall(pdu(5, bytes(4)))
        read_pdu(peer)


def read_pdu(peer: socket.socket) -> tuple[int, bytes]:
    """Type and body of the next PDU."""
    header = peer.recv(6, socket.MSG_WAITALL)
    kind, _, length = struct.unpack(">BBI", header)
    return kind, peer.recv(length, socket.MSG_WAITALL)


def main() -> None:
    """Prints the memory before and at its largest."""
    associations = int(sys.argv[1]) if len(sys.argv) > 1 else 64
    megabytes = int(sys.argv[2]) if len(sys.argv) > 2 else 500
    with tempfile.TemporaryDirectory() as name:
        if shutil.disk_usage(name).free < associations * megabytes * 1_100_000:
            sys.exit(f"the disk of {name} has no room for {associations} times {megabytes} MB")
        with lone_edge(Path(name) / "edge") as (edge, process):
            watched = psutil.Process(process.pid)
            before = largest = watched.memory_info().rss
            together, statuses = threading.Barrier(associations), list[int]()
            arguments = (edge.dicom_port, edge.called, megabytes, together, statuses)
            senders = [threading.Thread(target=store, args=arguments) for _ in range(associations)]
            began = time.perf_counter()
            for sender in senders:
                sender.start()
            while any(sender.is_alive() for sender in senders):
                largest = max(largest, watched.memory_info().rss)
                time.sleep(SAMPLE_SECONDS)
            seconds = time.perf_counter() - began
    if statuses != [0] * associations:
        sys.exit(f"not everything was stored: {statuses}")
    console.print(
        f"{associations} associations, {megabytes} MB each, {seconds:.0f} s: resident memory of the edge"
        f" {before / 1e6:.0f} MB before, {largest / 1e6:.0f} MB at most (wanted: 256 MB at most)"
    )


if __name__ == "__main__":
    main()
