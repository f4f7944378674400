"""Where a container's output goes: a sink per log driver.

    journald            the user's journal (engine.output.log_journal)
    json-file           containers/<id>/log, rotated JSON lines (engine.output.log_file)
    none, passthrough   nowhere; with passthrough the payload has the caller's own descriptors

Hot: the supervisor opens one sink, writes what it reads from the payload, and calls `tick` when
`timeout_ms` has passed.
"""

from __future__ import annotations

from rootlesspy.errors import Unsupported
from rootlesspy.light_typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rootlesspy.engine.record import ContainerRecord
    from rootlesspy.paths import Paths

DRIVERS = ("journald", "json-file", "none", "passthrough")
TAG_FIELDS = ("{{.ID}}", "{{.FullID}}", "{{.Name}}", "{{.ImageName}}")


class Sink(Protocol):
    """What the supervisor writes to; no method waits for long."""

    lost: str
    """How much output is missing, for the record of the end; empty: nothing."""

    def write(self, stream: str, data: bytes) -> None:
        """Take what the payload wrote to stdout or stderr."""

    def full(self) -> bool:
        """Say that the payload has to wait: do not read its output before the next tick."""

    def timeout_ms(self) -> int:
        """Return in how many milliseconds tick is due; -1: not at all."""

    def tick(self) -> None:
        """Send what has waited long enough."""

    def close(self) -> None:
        """Send the last words."""


class NullSink:
    """Writes nothing anywhere."""

    lost = ""

    def write(self, stream: str, data: bytes) -> None:
        """Forget it."""

    def full(self) -> bool:
        """Never."""
        return False

    def timeout_ms(self) -> int:
        """Never due."""
        return -1

    def tick(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


def default_driver(paths: Paths) -> str:
    """Return the driver of a container that named none: journald where its log can be read."""
    from rootlesspy.systemd import journal

    del paths
    return "journald" if journal.readable() else "json-file"


def open_sink(paths: Paths, record: ContainerRecord, *, unit: str) -> Sink:
    """Open the sink of a container that is about to start.

    unit: its scope, empty without one.  Raises Unsupported when the driver that was asked for
    cannot be used or its file cannot be made.
    """
    driver = record.log_driver or default_driver(paths)
    if driver == "journald":
        return _journal_sink(paths, record, unit)
    if driver == "json-file":
        from rootlesspy.engine.output import log_file

        return log_file.open_sink(paths, record)
    return NullSink()


def _journal_sink(paths: Paths, record: ContainerRecord, unit: str) -> Sink:
    import os

    from rootlesspy.engine.output import journal_limit, log_budget, log_journal
    from rootlesspy.systemd import journal

    if record.log_driver and not os.access(journal.SOCKET, os.W_OK):
        raise Unsupported(
            f"log driver journald: {journal.SOCKET} does not take records",
            hint="use --log-driver json-file",
        )
    tag = _tag(record)
    values = {
        "SYSLOG_IDENTIFIER": tag or record.name,
        "CONTAINER_NAME": record.name,
        "CONTAINER_ID": record.id[:12],
        "CONTAINER_ID_FULL": record.id,
        **({"CONTAINER_TAG": tag} if tag else {}),
        "IMAGE_NAME": record.image,
        **({"USER_UNIT": unit} if unit else {}),
    }
    return log_journal.JournalSink(
        journal.fields(values), log_budget.Budget(paths, journal_limit.read()), journal.Journal()
    )


def _tag(record: ContainerRecord) -> str:
    tag = record.log_options.get("tag", "")
    values = (record.id[:12], record.id, record.name, record.image)
    for each, value in zip(TAG_FIELDS, values, strict=True):
        tag = tag.replace(each, value)
    return tag
