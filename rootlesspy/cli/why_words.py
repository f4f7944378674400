"""The sentences of `rp why`, made of its facts."""

from __future__ import annotations

import signal

from rootlesspy.cli import human
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from rootlesspy.engine.record import ExitRecord
    from rootlesspy.engine.views.why import Explanation

_SHELL_SIGNALS = range(129, 160)
_CHECKS = 3
_OUTPUT_CELLS = 100
_QUICK_S = 1.0


class Words(NamedTuple):
    """What is told, line by line."""

    headline: str
    mood: str
    """good, odd or bad."""
    cause: tuple[str, ...]
    memory: tuple[str, ...]
    service: tuple[str, ...]
    health: tuple[str, ...]
    next: tuple[str, ...]


def put(facts: Explanation, now_s: float) -> Words:
    """Put the facts into words."""
    return Words(
        headline=_headline(facts, now_s),
        mood=_mood(facts),
        cause=tuple(_cause(facts)),
        memory=tuple(_memory(facts)),
        service=tuple(_service(facts)),
        health=tuple(_health(facts, now_s)),
        next=tuple(_next(facts)),
    )


def _headline(facts: Explanation, now_s: float) -> str:
    found, ended = facts.found, facts.found.exit
    name = found.record.name
    if ended is None:
        made, started = (
            _lower(human.ago(then_s, now_s)) for then_s in (found.record.created_s, found.started_s)
        )
        return {
            "running": f"{name} is running; it was started {started}",
            "paused": f"{name} is paused; it was started {started}",
            "created": f"{name} was made {made} and has never run",
        }.get(facts.kind, f"{name} is damaged: its record cannot be read")
    if facts.kind == "lost":
        return f"{name} has ended, and nobody saw how"
    when = _lower(human.ago(ended.finished_s, now_s))
    if facts.kind == "start":
        return f"{name} did not start, {when}: exit code {ended.exit_code}"
    ran = _lower(human.duration(ended.finished_s - ended.started_s))
    return f"{name} ended {when}, after {ran}: {_how(ended)}"


def _how(ended: ExitRecord) -> str:
    if ended.signal:
        return f"killed by {signal_name(ended.signal)}, exit code {ended.exit_code}"
    return f"exit code {ended.exit_code}"


def _mood(facts: Explanation) -> str:
    if facts.kind in ("oom", "lost", "start", "broken", "unhealthy", "signal", "timeout"):
        return "bad"
    if facts.health is not None and facts.health.status == "unhealthy":
        return "bad"
    if facts.kind == "exit" and facts.found.exit is not None and facts.found.exit.exit_code:
        return "bad"
    return "good" if facts.kind == "running" else "odd"


def _cause(facts: Explanation) -> list[str]:
    ended, kept = facts.found.exit, facts.found.record
    if ended is None:
        return _present(facts)
    stop = signal_name(kept.stop_signal)
    told = {
        "oom": "the kernel killed it because its memory limit was reached",
        "start": ended.error,
        "stop": f"rp stop sent {stop}, and it ended",
        "timeout": f"it was told to stop by {stop} and had not ended in time, so it was killed",
        "kill": "rp kill, or rp rm --force",
        "systemctl": "its scope or service was stopped by systemctl or by another unit",
        "shutdown": "the user manager was stopped: the end of your last session, or a shutdown",
        "unhealthy": "it was unhealthy, and its health check says --health-on-failure "
        f"{(kept.health or {}).get('OnFailure', 'none')}",
    }.get(facts.kind)
    if told is None:
        return _own_end(facts, ended)
    return [told, *([ended.error] if ended.error and facts.kind not in ("oom", "start") else [])]


def _present(facts: Explanation) -> list[str]:
    if facts.kind == "paused":
        return ["rp pause, or systemctl --user freeze: its processes do not run"]
    if facts.kind == "created" and facts.service is not None and facts.service.result != "success":
        return ["it was started, but its service failed before its command ran"]
    return []


def _own_end(facts: Explanation, ended: ExitRecord) -> list[str]:
    """Say what an end that nobody of rp's or systemd's asked for may mean."""
    lines = [ended.error] if ended.error else []
    code = ended.exit_code
    if facts.kind == "lost":
        reboot = "the machine was restarted while it ran"
        killed = "the supervisor of the container was killed (kill -9, or no memory left)"
        return [reboot if facts.rebooted else killed]
    if ended.signal:
        number = ended.signal
        lines.append(f"{signal.strsignal(number) or 'signal'}: {_sender(number)}")
    elif code == 0:
        lines.append("its command came to its end without an error")
        if ended.finished_s - ended.started_s < _QUICK_S and not facts.found.record.interactive:
            lines.append("at once: a shell, for instance, ends when it has no input (-i, -t)")
    elif code in _SHELL_SIGNALS:
        name = signal_name(code - 128)
        lines.append(f"its command ended with {code}: shells return that for an end by {name}")
    elif code in (126, 127):
        what = "could not execute" if code == 126 else "did not find"
        lines.append(
            f"its command ended with {code}: shells return that when they {what} a program"
        )
    else:
        lines.append(f"its command ended by itself with exit code {code}")
    return lines


def _sender(number: int) -> str:
    if number == signal.SIGKILL:
        return (
            "neither rp nor systemctl sent it; a process, or the kernel when the whole machine "
            "lacked memory (journalctl -k)"
        )
    if number in (signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT):
        return "its program crashed"
    if number == signal.SIGSYS:
        return "a system call that the seccomp filter forbids"
    return "another process sent it, or the terminal it was attached to"


def _memory(facts: Explanation) -> list[str]:
    limit, peak = facts.memory_limit_bytes, facts.memory_peak_bytes
    parts = []
    if limit:
        parts.append(f"limit {human.size(limit)}")
    if peak is not None:
        parts.append(f"peak {human.size(peak)}")
    if facts.oom_kills:
        times = "once" if facts.oom_kills == 1 else f"{facts.oom_kills} times"
        parts.append(f"the kernel killed a process inside for lack of memory {times}")
    return [", ".join(parts)] if parts else []


def _service(facts: Explanation) -> list[str]:
    service, restart = facts.service, facts.found.record.restart
    if service is None:
        if restart != "no":
            return [f"none is loaded; --restart {restart} counts again from the next rp start"]
        return []
    active, _, sub = service.active.partition("/")
    state = {"auto-restart": "systemd is about to start it again"}.get(sub, active)
    parts = [f"{service.name}: {state}"]
    if service.result not in ("", "success"):
        parts.append(f"result {service.result}")
    if restart != "no":
        parts.append(f"--restart {restart}")
    if service.restarts:
        times = "once" if service.restarts == 1 else f"{service.restarts} times"
        parts.append(f"restarted {times}")
    return [", ".join(parts)]


def _health(facts: Explanation, now_s: float) -> list[str]:
    health = facts.health
    if health is None:
        return []
    streak = f", failed {health.failing_streak} times in a row" if health.failing_streak else ""
    lines = [f"{health.status}{streak}"]
    for each in reversed(health.log[-_CHECKS:]):
        said = " ".join(each.output.split())
        said = f"{said[:_OUTPUT_CELLS]}…" if len(said) > _OUTPUT_CELLS else said
        when = _lower(human.ago(each.end_s, now_s))
        lines.append(f"{when}: exit code {each.exit_code}{f': {said}' if said else ''}")
    return lines


def _next(facts: Explanation) -> list[str]:
    """Return commands that help from here."""
    name, kind = facts.found.record.name, facts.kind
    service = facts.service.name if facts.service else f"rp-{name}.service"
    if facts.service is not None and facts.service.result == "start-limit-hit":
        return [f"systemctl --user reset-failed {service}; rp start {name}"]
    journal = f"journalctl --user -u {service} -n 20"
    if kind == "created" and _present(facts):
        return [journal, "rp doctor", f"rp start {name}"]
    found = [journal, "rp doctor"] if kind == "lost" else _steps(facts)
    if kind == "running" and facts.health is not None and facts.health.status == "unhealthy":
        found.insert(0, f"rp healthcheck run {name}")
    if kind == "shutdown" and not facts.lingers:
        found.append("loginctl enable-linger lets containers go on when you log out")
    if kind == "shutdown" or (kind == "lost" and facts.rebooted):
        found.append(f"rp enable {name} starts it with your session")
    if facts.found.exit is not None:
        found += [f"rp logs {name}"] if facts.log else []
        found += [f"rp start {name}"] if kind not in ("oom", "start") else []
    return found


def _steps(facts: Explanation) -> list[str]:
    """Return what helps with one kind of end, or one state."""
    kept = facts.found.record
    name = kept.name
    patience = (
        "let its command handle the stop signal, or choose another one (--stop-signal), or give "
        "it more time (--stop-timeout)"
    )
    known = {
        "running": [f"rp logs -f {name}", f"rp top {name}", f"rp stats {name}"],
        "paused": [f"rp unpause {name}"],
        "created": [f"rp start {name}"],
        "broken": [f"rp rm -f {name}"],
        "oom": [f"rp update --memory SIZE {name}", f"rp start {name}"],
        "start": [f"rp inspect {name}", f"rp run --rm -it --entrypoint sh {kept.image}"],
        "timeout": [patience],
        "unhealthy": [f"rp inspect -f '{{{{json .State.Health}}}}' {name}"],
    }
    return list(known.get(facts.kind, ()))


def signal_name(number: int) -> str:
    """Return SIGTERM for 15; real-time and unknown signals by number."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
