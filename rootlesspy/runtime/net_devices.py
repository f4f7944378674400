"""linux.netDevices: devices that leave the caller's network namespace for the container's.

`move` runs in the runtime's process, `configure` in the container's init before its hooks: the
kernel drops a device's addresses on the way, and only init may give it some there.  Routes are not
kept.  Source: runtime-spec config-linux.md "Network Devices".
"""

from __future__ import annotations

import errno

from rootlesspy.errors import RuntimeFailure
from rootlesspy.light_typing import TYPE_CHECKING
from rootlesspy.linux import rtnetlink

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rootlesspy.oci.runtime_spec import LinuxNetDevice

_OWNER = "the caller must be root of the user namespace that its network belongs to"


def move(devices: Mapping[str, LinuxNetDevice], pid: int) -> bytes:
    """Move devices into the namespace of a process; return what `configure` is told.

    Raises RuntimeFailure.
    """
    connection = rtnetlink.Rtnetlink()
    lines = []
    name = ""
    try:
        for name, device in devices.items():
            inside = device.get("name", name)
            index = rtnetlink.index_of(name)
            words = [inside]
            for each in connection.addresses(index):
                parts = (each.local.hex(), each.address.hex(), each.broadcast.hex())
                words.append(f"{each.family}/{each.prefix_length}/{'/'.join(parts)}")
            connection.move(index, pid, inside)
            lines.append(" ".join(words))
    except OSError as error:
        raise RuntimeFailure(
            f"linux.netDevices: {name} cannot be moved: {error.strerror}",
            step="network devices",
            errno=error.errno or 0,
            hint=_OWNER if error.errno == errno.EPERM else None,
        ) from error
    finally:
        connection.close()
    return "\n".join(lines).encode()


def configure(told: bytes) -> None:
    """Give moved devices their addresses again and bring them up.  Raises OSError."""
    connection = rtnetlink.Rtnetlink()
    try:
        for line in told.decode().split("\n"):
            name, *words = line.split(" ")
            index = rtnetlink.index_of(name)
            for word in words:
                family, length, *parts = word.split("/")
                address = rtnetlink.Address(
                    int(family), int(length), *(bytes.fromhex(part) for part in parts)
                )
                connection.add_address(index, address)
            connection.bring_up(index)
    finally:
        connection.close()
