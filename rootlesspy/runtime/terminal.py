"""The container's pseudo-terminal, made inside its own devpts by init.

Sources: pts(4), ioctl_tty(2).  The slave is opened through its master (TIOCGPTPEER): no path that
an image or a shared volume could have replaced is looked up (CVE-2025-52565).
"""

from __future__ import annotations

import fcntl
import os

from rootlesspy.light_modules import struct
from rootlesspy.linux import mount, pathrs

# <asm-generic/ioctls.h>; the module termios, which has some of them, is a library to be loaded.
_TIOCSCTTY = 0x540E
_TIOCGWINSZ = 0x5413
_TIOCSWINSZ = 0x5414
_TIOCGPTPEER = 0x5441
_TIOCSPTLCK = 0x40045431


def open_pty(root_fd: int, rows: int, columns: int) -> tuple[int, int]:
    """Make a pty of the container's devpts and return (master, slave)."""
    flags = os.O_RDWR | os.O_NOCTTY
    master = pathrs.open_in_root(root_fd, "dev/pts/ptmx", flags)
    fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("i", 0))
    slave = fcntl.ioctl(master, _TIOCGPTPEER, flags | os.O_CLOEXEC)
    if rows and columns:
        set_size(master, rows, columns)
    return master, slave


def set_size(fd: int, rows: int, columns: int) -> None:
    """Tell the terminal how large it is; its foreground processes get SIGWINCH."""
    fcntl.ioctl(fd, _TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def get_size(fd: int) -> tuple[int, int]:
    """Return (rows, columns) of a terminal."""
    rows, columns, _, _ = struct.unpack("HHHH", fcntl.ioctl(fd, _TIOCGWINSZ, b"\0" * 8))
    return rows, columns


def bind_console(root_fd: int, slave: int) -> None:
    """Make /dev/console of the container the pty's slave."""
    target = pathrs.make_file(root_fd, "dev/console", 0o600)
    tree = mount.open_tree(b"", dir_fd=slave)
    mount.move_mount(tree, target)
    os.close(tree)
    os.close(target)


def become_controlling(slave: int) -> None:
    """Make the slave the controlling terminal of this session and its stdin, stdout, stderr."""
    fcntl.ioctl(slave, _TIOCSCTTY, 0)
    for number in (0, 1, 2):
        os.dup2(slave, number)
