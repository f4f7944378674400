"""Time a fixed amount of work inside a container: prints milliseconds on its last line.

inside_probe.py syscalls|cpu|disk|fsync|tcp [DIRECTORY].  Stands alone (standard library only).
"""

import os
import socket
import sys
import time

_CALLS = 1_000_000
_STEPS = 5_000_000
_DISK_BYTES = 256 << 20
_FSYNCS = 200
_TCP_BYTES = 1 << 30
_BLOCK = 1 << 16
# Who starts it has something to do for a moment yet.
_SETTLING_S = 0.3


def syscalls(_directory: str) -> None:
    """Make a call that does next to nothing."""
    call = os.getppid
    for _ in range(_CALLS):
        call()


def cpu(_directory: str) -> None:
    """Count, in the interpreter."""
    total = 0
    for step in range(_STEPS):
        total += step & 7


def disk(directory: str) -> None:
    """Write a file and leave it to the kernel."""
    _write(directory, _DISK_BYTES // _BLOCK, _BLOCK, durable=False)


def fsync(directory: str) -> None:
    """Write a file, and wait for the disk after each 4 KiB."""
    _write(directory, _FSYNCS, 4096, durable=True)


def tcp(_directory: str) -> None:
    """Send a gigabyte to a process of the same container."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        pid = os.fork()
        if pid == 0:
            with socket.create_connection(server.getsockname()) as client:
                block = bytes(_BLOCK)
                for _ in range(_TCP_BYTES // _BLOCK):
                    client.sendall(block)
            os._exit(0)
        connection, _ = server.accept()
        buffer = bytearray(1 << 18)
        with connection:
            while connection.recv_into(buffer):
                pass
        os.waitpid(pid, 0)


def _write(directory: str, count: int, size: int, *, durable: bool) -> None:
    block = os.urandom(size)
    path = os.path.join(directory, f"written-{os.getpid()}")
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        for _ in range(count):
            os.write(fd, block)
            if durable:
                os.fsync(fd)
    finally:
        os.close(fd)
        os.unlink(path)


WORK = {each.__name__: each for each in (syscalls, cpu, disk, fsync, tcp)}


if __name__ == "__main__":
    chosen = WORK[sys.argv[1]]
    time.sleep(_SETTLING_S)
    began_ns = time.perf_counter_ns()
    chosen(sys.argv[2] if len(sys.argv) > 2 else "/var/tmp")
    print((time.perf_counter_ns() - began_ns) / 1e6)
