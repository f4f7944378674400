"""Send programs into the rig that work there as root: several modules as one text."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from rig import snapshot

if TYPE_CHECKING:
    from rig.machine import Machine

HERE = Path(__file__).parent
_BOOT = """
import json, sys, types
sent = json.load(sys.stdin)
for name, text in sent["modules"]:
    package, _, last = name.rpartition(".")
    module = sys.modules[name] = types.ModuleType(name)
    if package:
        setattr(sys.modules[package], last, module)
    exec(compile(text, name, "exec"), module.__dict__)
module.main(sent["job"])
"""


def drive(
    machine: Machine,
    program: str,
    job: dict[str, Any],
    limit_s: float,
    *,
    told: IO[str] | int = subprocess.PIPE,
) -> dict[str, Any]:
    """Run faults/PROGRAM.py as root of the machine; return what it prints as JSON.

    told: where what it says meanwhile on stderr goes.
    """
    modules = [(package, "") for package in ("rig", "namespace", "namespace.faults")]
    modules.append(("rig.snapshot", Path(snapshot.__file__).read_text(encoding="utf-8")))
    for name in ("contract", program):
        path = HERE / f"{name}.py"
        modules.append((f"namespace.faults.{name}", path.read_text(encoding="utf-8")))
    text = json.dumps({"modules": modules, "job": job})
    argv = ["python3", "-I", "-c", _BOOT]
    process = machine.popen(
        argv, user="root", stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=told, text=True
    )
    with process:
        try:
            out, err = process.communicate(text, timeout=limit_s)
        except BaseException:
            process.kill()
            raise
    assert process.returncode == 0, f"{program}: {process.returncode} {out} {err}"
    return dict(json.loads(out))
