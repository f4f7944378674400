"""The `rig` command: build, up, run, shell, down, status, vm."""

from __future__ import annotations

import argparse
import subprocess
import sys

from rig import enter, install, instance, location, recipe, rootfs, vm


def main() -> int:
    """Run the command line; return the exit code."""
    arguments = _parser().parse_args()
    try:
        return int(_COMMANDS[arguments.command](arguments))
    except (location.RigError, OSError) as error:
        print(f"rig: {error}", file=sys.stderr)
        return 1


def _build(arguments: argparse.Namespace) -> int:
    suite = arguments.suite or recipe.SUITES[0]
    print(vm.ensure(suite, _say).directory if arguments.vm else rootfs.ensure(suite, _say))
    return 0


def _up(arguments: argparse.Namespace) -> int:
    _ensure(arguments)
    return 0


def _run(arguments: argparse.Namespace) -> int:
    argv = arguments.argv[1:] if arguments.argv[:1] == ["--"] else arguments.argv
    if not argv:
        raise location.RigError("no command was given (rig run -- COMMAND)")
    rig = _ensure(arguments)
    user = "root" if arguments.root else arguments.user
    sys.stdout.flush()
    return enter.run(instance.entry(rig, argv, user=user))


def _shell(arguments: argparse.Namespace) -> int:
    arguments.argv = ["/bin/bash", "-l"]
    return _run(arguments)


def _down(arguments: argparse.Namespace) -> int:
    instance.down(arguments.name)
    return 0


def _vm(arguments: argparse.Namespace) -> int:
    suite = arguments.suite or recipe.SUITES[0]
    argv = arguments.argv[1:] if arguments.argv[:1] == ["--"] else arguments.argv
    user = "root" if arguments.root else arguments.user
    with vm.started(suite, arguments.state, _say) as running:
        return subprocess.run(vm.Door(running).argv(argv or ["bash", "-l"], user, {})).returncode


def _status(_arguments: argparse.Namespace) -> int:
    for rig in instance.running():
        print(f"{rig.name}\t{rig.suite}\tpid {rig.init_pid}\t{rig.directory}")
    return 0


_COMMANDS = {
    "build": _build,
    "up": _up,
    "run": _run,
    "shell": _shell,
    "down": _down,
    "status": _status,
    "vm": _vm,
}


def _ensure(arguments: argparse.Namespace) -> instance.Instance:
    suite = arguments.suite
    if suite is None:
        existing = [rig.suite for rig in instance.running() if rig.name == arguments.name]
        suite = existing[0] if existing else recipe.SUITES[0]
    rig = instance.up(arguments.name, suite, _say)
    install.sync(rig)
    return rig


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rig", description="A machine with a real systemd user manager, in namespaces."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    build = commands.add_parser("build", help="build the root file system, unless it is cached")
    build.add_argument("--vm", action="store_true", help="and the virtual machine")
    up = commands.add_parser("up", help="start the rig, unless it runs")
    run = commands.add_parser("run", help="run a command in it as the unprivileged user alice")
    shell = commands.add_parser("shell", help="open a shell in it")
    down = commands.add_parser("down", help="end it and remove all of it")
    commands.add_parser("status", help="list the running rigs")
    machine = commands.add_parser("vm", help="run a command, or a shell, in a new virtual machine")
    machine.add_argument("--state", choices=vm.STATES, default="default")
    for command in (build, up, run, shell, machine):
        command.add_argument("--suite", choices=recipe.SUITES, help="Debian release")
    for command in (up, run, shell, down):
        command.add_argument("--name", default="main", help="which rig (default main)")
    for command in (run, shell, machine):
        command.add_argument("--root", action="store_true", help="as root instead of alice")
        command.add_argument(
            "--user", choices=("alice", "bob", "root"), default="alice", help="as this user"
        )
    for command in (run, machine):
        command.add_argument("argv", nargs=argparse.REMAINDER, metavar="-- COMMAND")
    return parser


def _say(text: str) -> None:
    print(f"rig: {text}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
