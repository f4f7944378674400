"""Bundles for the tests of rp-oci: a root file system per module, config.json per test."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rig.machine import Machine

HOME = "/home/alice/oci"
_UNPACK = f"""
set -e
rm -rf {HOME}
mkdir -p {HOME}/rootfs
rp create --name oci-rootfs alpine true >/dev/null
rp export oci-rootfs | tar -C {HOME}/rootfs -xf -
rp rm oci-rootfs >/dev/null
cd {HOME}
rp-oci spec
"""


class Bundles:
    """Writes bundles into the rig, all on one root file system, and runs runtimes on them."""

    def __init__(self, rig: Machine) -> None:
        self.rig = rig
        rig.run(["sh", "-c", _UNPACK], timeout=120)
        self._base = json.loads(rig.run(["cat", f"{HOME}/config.json"]).stdout)
        self._base["process"]["terminal"] = False
        self._base["root"] = {"path": f"{HOME}/rootfs"}

    def spec(self, *arguments: str) -> dict[str, Any]:
        """Return a spec that runs a command; the caller changes it as it likes."""
        spec: dict[str, Any] = copy.deepcopy(self._base)
        spec["process"]["args"] = list(arguments)
        return spec

    def write(self, spec: dict[str, Any], name: str = "bundle") -> str:
        """Write a bundle; return its directory."""
        directory = f"{HOME}/{name}"
        script = f"mkdir -p {directory} && cat > {directory}/config.json"
        self.rig.run(["sh", "-c", script], input=json.dumps(spec))
        return directory

    def run(self, spec: dict[str, Any], *, runtime: str = "rp-oci", check: bool = True) -> Any:
        """Run a spec to its end; return what the command gave."""
        directory = self.write(spec)
        argv = [runtime, "run", "--bundle", directory, "oci-test"]
        return self.rig.run(argv, check=check, input="", timeout=60)
