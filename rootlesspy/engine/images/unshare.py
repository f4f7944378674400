"""`rp unshare`: a program as root of the user's namespace, where all of the store can be seen.

The environment variable says to rp's own commands below it that they are there.
"""

from __future__ import annotations

import os
import shutil

from rootlesspy.engine import idmap
from rootlesspy.errors import CommandNotExecutable, CommandNotFound, Unsupported
from rootlesspy.light_modules import signal
from rootlesspy.light_typing import TYPE_CHECKING, NoReturn
from rootlesspy.linux import userns

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

VARIABLE = "_ROOTLESSPY_UNSHARED"
# What Python ignores or handles, and a program must get as it comes.
_DEFAULTS = (signal.SIGINT, signal.SIGQUIT, signal.SIGPIPE, signal.SIGXFSZ)


def run(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a command, the user's shell when it is empty; return its exit code, 128+n for a signal.

    Raises CommandNotFound, CommandNotExecutable, Unsupported where there is no user namespace.
    """
    words = list(command) or [environment.get("SHELL") or "/bin/sh"]
    program = _found(words[0], environment)
    variables = {**environment, VARIABLE: "1"}

    def execute() -> NoReturn:
        for number in _DEFAULTS:
            signal.signal(number, signal.SIG_DFL)
        os.execve(program, words, variables)  # noqa: S606 - what was asked for

    # Ctrl-C is the program's; this process waits for what it makes of it.
    before = {number: signal.signal(number, signal.SIG_IGN) for number in _DEFAULTS[:2]}
    try:
        status = userns.execute_in_userns(idmap.default_maps(), execute)
    except userns.HelperError as error:
        raise Unsupported(
            f"cannot map ids: {error.filename}: {error.strerror}", hint=userns.helper_hint(error)
        ) from error
    except OSError as error:
        if error.filename == program:
            raise CommandNotExecutable(
                f"cannot execute {program}: {error.strerror}",
                step="execve",
                errno=error.errno or 0,
                path=program,
            ) from error
        raise Unsupported(
            f"cannot make a user namespace: {error.strerror}",
            hint="sysctl user.max_user_namespaces kernel.apparmor_restrict_unprivileged_userns",
        ) from error
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return status if status >= 0 else 128 - status


def _found(name: str, environment: Mapping[str, str]) -> str:
    """Look a program up in PATH.  Raises CommandNotFound."""
    path = shutil.which(name, path=environment.get("PATH", os.defpath))
    if path is None and "/" in name and os.path.exists(name):
        path = name
    if path is None:
        raise CommandNotFound(f"no command {name}", step="execve", path=name)
    return path
