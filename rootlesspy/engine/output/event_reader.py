"""Reads the events that `engine.output.events` told to the journal, past and coming.  Cold."""

from __future__ import annotations

import math
import os
import select
import time

from rootlesspy.engine.output.events import MESSAGE_ID
from rootlesspy.errors import Unsupported
from rootlesspy.light_modules import json
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple
from rootlesspy.systemd import journal, journal_reader

if TYPE_CHECKING:
    from collections.abc import Iterator

_FIELDS = (
    "RP_TYPE", "RP_EVENT", "RP_TIME", "RP_NAME", "RP_ID", "RP_IMAGE", "RP_LABELS", "RP_ATTRIBUTES",
    "RP_EXIT_CODE", "RP_HEALTH_STATUS",
)  # fmt: skip
_LONGEST_S = 3600.0
"""How long to wait for a moment that the clock may jump to; poll(2) ends at 25 days."""


class Event(NamedTuple):
    """Something that happened."""

    time_ns: int
    type: str
    """container, image or volume."""
    kind: str
    id: str
    name: str
    image: str
    labels: dict[str, str]
    attributes: dict[str, str]
    exit_code: int | None
    health_status: str


def read(*, since_s: float | None, until_s: float | None, follow: bool) -> Iterator[Event]:
    """Yield events, oldest first; with follow also what happens from now on, until until_s.

    since_s None: with follow only what is to come, otherwise everything.  Raises Unsupported where
    this user cannot read his journal.
    """
    if not journal.readable():
        raise Unsupported(
            "events are kept in the journal, and this user cannot read his",
            hint=journal.CURE,
        )
    now_s = time.time()
    # The reader begins with a whole second.  What is older comes after the clock was set back.
    outside_s = (now_s - 1, now_s) if since_s is None and follow else (-math.inf, since_s)
    since_s = now_s if since_s is None and follow else since_s
    live = follow and (until_s is None or until_s > now_s)
    reader = journal_reader.Reader(
        [f"_UID={os.getuid()}", f"MESSAGE_ID={MESSAGE_ID}"],
        fields=_FIELDS,
        follow=live,
        since_s=since_s,
        until_s=None if live else until_s,
    )
    try:
        while not reader.done and _wait(reader, until_s if live else None):
            for fields in reader.read():
                event = _event(fields)
                if event is not None and _within(event, outside_s, until_s):
                    yield event
    finally:
        reader.close()


def _wait(reader: journal_reader.Reader, until_s: float | None) -> bool:
    """Wait for more; False: the time is over and nothing came."""
    poller = select.poll()
    poller.register(reader.fileno(), select.POLLIN)
    if until_s is None:
        return bool(poller.poll())
    while True:
        left_s = until_s - time.time()
        if poller.poll(int(max(0.0, min(_LONGEST_S, left_s)) * 1000) + 1):
            return True
        if left_s <= _LONGEST_S:
            return False


def _within(event: Event, outside_s: tuple[float, float | None], until_s: float | None) -> bool:
    time_s = event.time_ns / 1e9
    after, since_s = outside_s
    early = since_s is not None and after <= time_s < since_s
    return not early and (until_s is None or time_s <= until_s)


def _event(fields: journal_reader.Record) -> Event | None:
    """Understand one record; None for what rp did not write so."""
    text = {key: value.decode("utf-8", "replace") for key, value in fields.items()}
    try:
        return Event(
            time_ns=int(text["RP_TIME"]),
            type=text["RP_TYPE"],
            kind=text["RP_EVENT"],
            id=text.get("RP_ID", ""),
            name=text.get("RP_NAME", ""),
            image=text.get("RP_IMAGE", ""),
            labels=_texts(text.get("RP_LABELS", "{}")),
            attributes=_texts(text.get("RP_ATTRIBUTES", "{}")),
            exit_code=int(text["RP_EXIT_CODE"]) if "RP_EXIT_CODE" in text else None,
            health_status=text.get("RP_HEALTH_STATUS", ""),
        )
    except (KeyError, ValueError, RecursionError):
        return None


def _texts(text: str) -> dict[str, str]:
    found = json.loads(text)
    if not isinstance(found, dict):
        return {}
    return {str(key): str(value) for key, value in found.items()}
