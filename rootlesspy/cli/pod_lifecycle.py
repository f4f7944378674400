"""`rp pod start`, `stop`, `kill` and the like: what is done to all members of pods."""

from __future__ import annotations

import sys

from rootlesspy.cli import hot
from rootlesspy.cli import light_typer as typer
from rootlesspy.cli.pod_choice import chosen, each, flag, names, value
from rootlesspy.cli.question import agreed
from rootlesspy.cli.removal import Removal
from rootlesspy.errors import Conflict, Error, NotFound
from rootlesspy.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rootlesspy.cli.session import Session
    from rootlesspy.engine.pods.store import Pod

_ALL = ("--all", "-a")
_LATEST = ("--latest", "-l")


def start(
    context: typer.Context,
    pods: list[str] = names(),
    everything: bool = flag("All.", *_ALL),
    latest: bool = flag("The newest.", *_LATEST),
    files: list[str] = value("FILE", "Read a pod's id from a file.", "--pod-id-file"),
) -> int:
    """Start pods: their services, and all members that do not run."""
    from rootlesspy.engine.pods import actions

    session: Session = context.obj
    found = chosen(session, "start", pods, everything=everything, latest=latest, files=files)
    return each(session, found, lambda pod: actions.start(session.paths(), pod, session.reporter))


def stop(
    context: typer.Context,
    pods: list[str] = names(),
    everything: bool = flag("All.", *_ALL),
    ignore: bool = flag("Do not mind names that do not exist.", "--ignore", "-i"),
    latest: bool = flag("The newest.", *_LATEST),
    files: list[str] = value("FILE", "Read a pod's id from a file.", "--pod-id-file"),
    limit: str | None = value("SECONDS", "Time until SIGKILL.", "--time", "-t"),
) -> int:
    """Stop all members of pods, and then what holds their namespaces."""
    from rootlesspy.engine.pods import actions

    session: Session = context.obj
    limit_s = hot.stop_time(limit)
    found = chosen(session, "stop", pods, everything=everything, latest=latest, files=files)
    return each(
        session,
        found,
        lambda pod: actions.stop(session.paths(), pod, limit_s, session.reporter),
        ignore_missing=ignore,
    )


def restart(
    context: typer.Context,
    pods: list[str] = names(),
    everything: bool = flag("All.", *_ALL),
    latest: bool = flag("The newest.", *_LATEST),
) -> int:
    """Stop pods and start them again, with all members."""
    from rootlesspy.engine.pods import actions

    session: Session = context.obj

    def again(pod: Pod) -> None:
        actions.stop(session.paths(), pod, None, session.reporter)
        actions.start(session.paths(), pod, session.reporter)

    found = chosen(session, "restart", pods, everything=everything, latest=latest)
    return each(session, found, again)


def kill(
    context: typer.Context,
    pods: list[str] = names(),
    everything: bool = flag("All.", *_ALL),
    latest: bool = flag("The newest.", *_LATEST),
    signal: str = typer.Option("KILL", "--signal", "-s", metavar="SIGNAL", help="Which one."),
) -> int:
    """Send a signal to all members of pods."""
    from rootlesspy.engine.inputs.values import parse_signal
    from rootlesspy.engine.pods import actions

    session: Session = context.obj
    number = parse_signal(signal, "--signal")
    found = chosen(session, "kill", pods, everything=everything, latest=latest)
    return each(session, found, lambda pod: actions.kill(session.paths(), pod, number))


def pause(
    context: typer.Context,
    pods: list[str] = names(),
    everything: bool = flag("All.", *_ALL),
    latest: bool = flag("The newest.", *_LATEST),
) -> int:
    """Freeze all members of pods."""
    from rootlesspy.engine.pods import actions

    session: Session = context.obj
    found = chosen(session, "pause", pods, everything=everything, latest=latest)
    return each(session, found, lambda pod: actions.pause(session.paths(), pod))


def unpause(
    context: typer.Context,
    pods: list[str] = names(),
    everything: bool = flag("All.", *_ALL),
    latest: bool = flag("The newest.", *_LATEST),
) -> int:
    """Let all members of pods go on."""
    from rootlesspy.engine.pods import actions

    session: Session = context.obj
    found = chosen(session, "unpause", pods, everything=everything, latest=latest)
    return each(session, found, lambda pod: actions.unpause(session.paths(), pod))


def rm(
    context: typer.Context,
    pods: list[str] = names(),
    everything: bool = flag("All.", *_ALL),
    force: bool = flag("Running members too.", "--force", "-f"),
    ignore: bool = flag("Do not mind names that do not exist.", "--ignore", "-i"),
    latest: bool = flag("The newest.", *_LATEST),
    files: list[str] = value("FILE", "Read a pod's id from a file.", "--pod-id-file"),
    limit: str | None = value("SECONDS", "With --force: time to stop.", "--time", "-t"),
) -> int:
    """Remove pods and their members.

    Exit code 1: one did not exist; 125: one has running members.
    """
    from rootlesspy.engine.pods import actions, store

    session: Session = context.obj
    paths, limit_s = session.paths(), hot.stop_time(limit)
    removal = Removal(session.reporter)
    for name in chosen(session, "rm", pods, everything=everything, latest=latest, files=files):
        if force and store.remove_damaged(paths, name):
            sys.stdout.write(f"{name}\n")
            continue
        try:
            pod = store.find(paths, name)
            actions.remove(paths, pod, session.reporter, force=force, timeout_s=limit_s)
        except NotFound as error:
            if not (ignore or force):
                removal.failed(error)
        except Conflict as error:
            removal.failed(Error(error.message, hint=error.hint))
        except Error as error:
            removal.failed(error)
        else:
            sys.stdout.write(f"{pod.id}\n")
    return removal.exit_code


def prune(context: typer.Context, force: bool = flag("Ask nothing.", "--force", "-f")) -> int:
    """Remove pods of which nothing runs, with their members; print their ids."""
    from rootlesspy.engine.pods import actions, store, views

    session: Session = context.obj
    if not force and not agreed("This command removes all stopped pods with their containers."):
        return 0
    paths = session.paths()
    for pod in store.everything(paths):
        if views.listed(paths, pod)["Status"] in ("Created", "Exited"):
            actions.remove(paths, pod, session.reporter, force=False)
            sys.stdout.write(f"{pod.id}\n")
    return 0
