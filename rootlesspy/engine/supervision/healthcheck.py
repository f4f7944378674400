"""Health checks: when one is due, what its result means, and what is known of them on disk.

`Monitor` is a state machine without clock and without processes; `health_runner` feeds it from the
supervisor's poll loop:

    each round:
      poll(… monitor.timeout_ms(now_s) …)
      if (argv := monitor.begin(now_s)) is not None: execute argv in the container
      when it has ended:               action = monitor.finished(exit_code, output, now_s)
      elif monitor.is_overdue(now_s):  kill it, then action = monitor.timed_out(now_s)
      after either: write(directory, monitor.health); carry out the action

Times are seconds of CLOCK_MONOTONIC: neither the container nor its timeouts run while the machine
is suspended.  The rules are docker's (docs.docker.com/reference/dockerfile/#healthcheck) and
podman's (podman-run(1)) where docker has none: the first check comes at once, on-failure actions,
startup checks.  Read by the supervisor, ps, inspect and why: nothing slow is imported.
"""

from __future__ import annotations

import time

from rootlesspy.engine import statefile
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rootlesspy.paths import Paths

STARTING, HEALTHY, UNHEALTHY = "starting", "healthy", "unhealthy"
NS_PER_S = 1_000_000_000
TIMED_OUT_CODE = -1
# --health-max-log-size=0 and --health-max-log-count=0 mean "all": health.json has an end.
MAX_OUTPUT_BYTES = 65536
_MAX_LOG_ENTRIES = 50
_MAX_POLL_MS = 2**31 - 1


class Startup(NamedTuple):
    """The check that runs instead until it has passed (--health-startup-…)."""

    argv: tuple[str, ...]
    interval_s: float
    timeout_s: float
    retries: int
    """Failures after which the container is restarted; 0: never."""
    successes: int
    """Successes in a row that it takes; 0 counts as 1."""


class Config(NamedTuple):
    """One container's health check, ready to be run."""

    argv: tuple[str, ...]
    interval_s: float = 30.0
    """From the end of one check to the next; 0: only rp healthcheck run."""
    timeout_s: float = 30.0
    start_period_s: float = 0.0
    """Until the first success, failures of this time after the start do not count."""
    start_interval_s: float = 5.0
    """Instead of interval_s within the start period, until the first success."""
    retries: int = 3
    on_failure: str = "none"
    """none, kill, restart or stop."""
    max_log_count: int = 5
    max_log_size: int = 500
    """Characters kept of a check's output; 0: all."""
    startup: Startup | None = None


class Entry(NamedTuple):
    """One check that was made."""

    start_s: float
    """Seconds since the epoch."""
    end_s: float
    exit_code: int
    """-1: timed out."""
    output: str


class Health(NamedTuple):
    """What is known of a container's health: the content of health.json."""

    status: str = STARTING
    failing_streak: int = 0
    log: tuple[Entry, ...] = ()
    """Oldest first."""


class Monitor:
    """The checks of one run of a container.

    started_s, now_s: CLOCK_MONOTONIC; wall: the clock that log entries show.
    """

    def __init__(
        self, config: Config, started_s: float, wall: Callable[[], float] = time.time
    ) -> None:
        self.health = Health()
        self._config = config
        self._started_s = started_s
        self._wall = wall
        self._startup = config.startup
        self._startup_results = (0, 0)
        self._begun_s: float | None = None
        self._begun_wall_s = 0.0
        self._due_s: float | None = started_s if self._interval_s(started_s) else None

    @property
    def output_limit_bytes(self) -> int:
        """How much of a check's output is worth keeping."""
        # A character has up to four bytes.
        return min(4 * self._config.max_log_size or MAX_OUTPUT_BYTES, MAX_OUTPUT_BYTES)

    def timeout_ms(self, now_s: float) -> int:
        """Return how long poll(2) may sleep until something has to be done; -1: for ever."""
        until_s = self._due_s if self._begun_s is None else self._begun_s + self._timeout_s()
        if until_s is None:
            return -1
        # Rounded up: waking too early would be a second wake-up.
        return min(max(0, -int(-(until_s - now_s) * 1000 // 1)), _MAX_POLL_MS)

    def begin(self, now_s: float) -> tuple[str, ...] | None:
        """Return the command of the check that is due, which is running from now on; or None."""
        if self._begun_s is not None or self._due_s is None or now_s < self._due_s:
            return None
        self._begun_s, self._begun_wall_s = now_s, self._wall()
        return self._startup.argv if self._startup else self._config.argv

    def is_running(self) -> bool:
        """Say whether a check was begun and has neither finished nor timed out."""
        return self._begun_s is not None

    def is_overdue(self, now_s: float) -> bool:
        """Say whether the running check has used up its time and must be killed."""
        return self._begun_s is not None and now_s >= self._begun_s + self._timeout_s()

    def request(self, now_s: float) -> None:
        """Make a check due at once; one that is running will do."""
        if self._begun_s is None:
            self._due_s = now_s

    def abandon(self, now_s: float) -> None:
        """Let the running or due check be none: the container was paused."""
        self._begun_s = None
        interval_s = self._interval_s(now_s)
        self._due_s = now_s + interval_s if interval_s else None

    def finished(self, exit_code: int, output: bytes, now_s: float) -> str:
        """Take the running check's result; return the action: "", kill, restart or stop.

        A result that nobody waits for is ignored.
        """
        if self._begun_s is None:
            return ""
        text = output.decode("utf-8", "replace").removesuffix("\n")
        entry = Entry(
            start_s=self._begun_wall_s,
            end_s=self._wall(),
            exit_code=exit_code,
            output=text[: self._config.max_log_size or MAX_OUTPUT_BYTES],
        )
        begun_s, self._begun_s = self._begun_s, None
        action = (self._judge_startup if self._startup else self._judge)(exit_code, begun_s)
        count = min(self._config.max_log_count or _MAX_LOG_ENTRIES, _MAX_LOG_ENTRIES)
        self.health = self.health._replace(log=(*self.health.log, entry)[-count:])
        interval_s = self._interval_s(now_s)
        self._due_s = now_s + interval_s if interval_s else None
        return action

    def timed_out(self, now_s: float) -> str:
        """Take it that the running check was killed for its time; return the action."""
        text = f"health check timed out after {self._timeout_s():g} s"
        return self.finished(TIMED_OUT_CODE, text.encode(), now_s)

    def _judge(self, exit_code: int, begun_s: float) -> str:
        before = self.health
        if exit_code == 0:
            self.health = before._replace(status=HEALTHY, failing_streak=0)
            return ""
        if before.status == STARTING and self._in_start_period(begun_s):
            return ""
        streak = before.failing_streak + 1
        self.health = before._replace(failing_streak=streak)
        if before.status == UNHEALTHY or streak < self._config.retries:
            return ""
        self.health = self.health._replace(status=UNHEALTHY)
        return "" if self._config.on_failure == "none" else self._config.on_failure

    def _judge_startup(self, exit_code: int, _begun_s: float) -> str:
        """Count a startup check; it ends for good when it has passed often enough."""
        startup = self._startup
        if startup is None:
            return ""
        successes, failures = self._startup_results
        if exit_code == 0:
            self._startup_results = (successes + 1, 0)
            if successes + 1 >= startup.successes:
                self._startup = None
            return ""
        self._startup_results = (0, failures + 1)
        if startup.retries == 0 or failures + 1 < startup.retries:
            return ""
        self._startup_results = (0, 0)
        return "restart"

    def _in_start_period(self, at_s: float) -> bool:
        return at_s < self._started_s + self._config.start_period_s

    def _interval_s(self, now_s: float) -> float:
        config = self._config
        if self._startup is not None:
            return self._startup.interval_s
        if self.health.status == STARTING and config.interval_s and self._in_start_period(now_s):
            return config.start_interval_s
        return config.interval_s

    def _timeout_s(self) -> float:
        return self._startup.timeout_s if self._startup else self._config.timeout_s


def config_of(stored: Mapping[str, object]) -> Config:
    """Return what ContainerRecord.health says (engine.inputs.health_values.resolve wrote it).

    Raises DamagedError.
    """
    try:
        startup = stored.get("Startup")
        return Config(
            argv=_argv(stored),
            interval_s=_seconds(stored, "Interval"),
            timeout_s=_seconds(stored, "Timeout"),
            start_period_s=_seconds(stored, "StartPeriod"),
            start_interval_s=_seconds(stored, "StartInterval"),
            retries=_number(stored, "Retries"),
            on_failure=str(stored["OnFailure"]),
            max_log_count=_number(stored, "MaxLogCount"),
            max_log_size=_number(stored, "MaxLogSize"),
            startup=_startup(startup) if isinstance(startup, dict) else None,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise statefile.DamagedError(f"the record's health check is damaged: {error}") from error


def write(directory: str, health: Health) -> None:
    """Write health.json into a container's directory.  Raises OSError."""
    value: dict[str, object] = {**health._asdict(), "log": [list(each) for each in health.log]}
    statefile.write(f"{directory}/health.json", value, durable=False)


def read(paths: Paths, container_id: str) -> Health | None:
    """Return what is known of a container's health; None: it has no checks, or never ran.

    Raises DamagedError, OSError.
    """
    path = f"{paths.container(container_id)}/health.json"
    try:
        value = statefile.read(path)
    except FileNotFoundError:
        return None
    try:
        log = value["log"]
        if not isinstance(log, list):
            raise TypeError("log is not a list")  # noqa: TRY301 - one wording for all damage
        return Health(
            status=str(value["status"]),
            failing_streak=_number(value, "failing_streak"),
            log=tuple(_entry(each) for each in log),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise statefile.DamagedError(f"{path} is damaged: {error}") from error


def check_now(paths: Paths, text: str) -> int:
    """Have a running container checked; return the check's exit code, -1: it timed out.

    Raises Conflict when it does not run, or ends meanwhile; Error when it has no check.
    """
    from rootlesspy.engine import lifecycle
    from rootlesspy.engine.supervision import control
    from rootlesspy.errors import Conflict, Error

    found = lifecycle.get(paths, text)
    name = found.record.name
    if found.record.health is None:
        raise Error(f"container {name} has no health check", hint="rp run --health-cmd COMMAND")
    end = lifecycle.running(paths, found)
    try:
        if lifecycle.is_paused(paths, found):
            raise Conflict(f"container {name} is paused", hint=f"rp unpause {name}")
        control.tell(end, "check")
        while (message := control.receive(end)) is not None:
            if message.kind == "checked":
                return message.number("exit_code")
            if message.kind == "failed":
                raise Error(message.text("message"), hint=message.text("hint") or None)
            if message.kind == "exited":
                break
    finally:
        end.close()
    raise Conflict(f"container {name} ended before its check did", hint=f"rp why {name}")


def _entry(fields: list[object]) -> Entry:
    start_s, end_s, exit_code, output = fields
    if not (isinstance(start_s, (int, float)) and isinstance(end_s, (int, float))):
        raise TypeError("a time is not a number")
    if not isinstance(exit_code, int):
        raise TypeError("an exit code is not a number")
    return Entry(float(start_s), float(end_s), exit_code, str(output))


def _startup(stored: Mapping[str, object]) -> Startup:
    return Startup(
        argv=_argv(stored),
        interval_s=_seconds(stored, "Interval"),
        timeout_s=_seconds(stored, "Timeout"),
        retries=_number(stored, "Retries"),
        successes=_number(stored, "Successes"),
    )


def _argv(stored: Mapping[str, object]) -> tuple[str, ...]:
    """Return the command of Test: ["CMD", word…], or ["CMD-SHELL", text] and the Shell."""
    test, shell = stored["Test"], stored.get("Shell", ["/bin/sh", "-c"])
    if not isinstance(test, list) or not isinstance(shell, list) or len(test) < 2:
        raise TypeError("no command")
    words = shell + test[1:2] if test[0] == "CMD-SHELL" else test[1:]
    return tuple(str(word) for word in words)


def _seconds(stored: Mapping[str, object], name: str) -> float:
    return _number(stored, name) / NS_PER_S


def _number(stored: Mapping[str, object], name: str) -> int:
    value = stored[name]
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} is not a number")
    return value
