"""Files of the store cut at any byte, overwritten, or of another kind: D1 to D3.

Each commit tries a few dozen kinds of damage.  RP_NIGHTLY=1 tries a random sample, for minutes, of
cuts at every byte and of every odd value in every field; with RP_NIGHTLY_MINUTES=0 all (hours).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from namespace.faults import driving
from rig.effort import effort, nightly, sampled, tell

if TYPE_CHECKING:
    from rig.machine import Machine

LIMIT_S = 6 * 3600 if nightly() else 600
pytestmark = [pytest.mark.usefixtures("alpine"), pytest.mark.limit(LIMIT_S)]

SEVEN = ["--network", "none", "alpine", "sh", "-c", "exit 7"]
GOOD = ["run", "--name", "good", *SEVEN]
BAD = ["run", "--name", "bad", "-v", "vol:/v", "-v", "/anonymous", *SEVEN]
DONE, REFUSED = [0], [0, 125]
OTHERS_LISTED = [["ps", "-a"], DONE, "good"]


def _kind(name: str, make: list[str], file: str, listing: list[str], *remove: str) -> Any:
    """Return an object of a kind that is listed, inspected and removed by its name."""
    commands = [
        [listing, DONE, ""],
        [[listing[0], "inspect", name], REFUSED, ""],
        OTHERS_LISTED,
        [list(remove), DONE, ""],
    ]
    return {"make": [GOOD, make], "files": [file], "commands": commands}


OBJECTS: dict[str, dict[str, Any]] = {
    "record": {
        "make": [GOOD, BAD],
        "files": [f"containers/BAD/{name}.json" for name in ("record", "state", "exit")],
        "commands": [
            OTHERS_LISTED,
            [["inspect", "bad"], REFUSED, ""],
            [["rm", "-f", "bad"], DONE, ""],
        ],
    },
    "spec": {
        "make": [GOOD, BAD],
        "files": ["containers/BAD/config.json"],
        "coarse": 20,
        "commands": [
            OTHERS_LISTED,
            [["inspect", "bad"], REFUSED, ""],
            [["start", "bad"], REFUSED, ""],
            [["rm", "-f", "bad"], DONE, ""],
        ],
    },
    "volume": _kind("vol", ["volume", "create", "vol"], "volumes/vol/volume.json",
                    ["volume", "ls"], "volume", "rm", "vol"),
    "network": _kind("net0", ["network", "create", "net0"], "networks/net0.json",
                     ["network", "ls"], "network", "rm", "-f", "net0"),
    "secret": _kind("s0", ["secret", "create", "s0", "/etc/hostname"], "secrets/s0.json",
                    ["secret", "ls"], "secret", "rm", "s0"),
    "pod": _kind("p0", ["pod", "create", "--name", "p0"], "pods/p0/pod.json",
                 ["pod", "ps"], "pod", "rm", "-f", "p0"),
    "name": {
        "make": [GOOD, BAD],
        "files": ["names/bad"],
        "commands": [
            [["ps", "-a"], DONE, "good"],
            [["inspect", "bad"], REFUSED, ""],
            [["rm", "-fa"], DONE, ""],
        ],
    },
    "images": {
        "make": [GOOD],
        "files": ["images/index.json", "images/oci-layout", "layers/sha256/*/layer.json",
                  "layers/default-maps", "cache/overlay.json"],
        "coarse": 10,
        "commands": [
            OTHERS_LISTED,
            [["images"], REFUSED, ""],
            [["fsck"], [0, 1], ""],
            [["image", "inspect", "alpine"], REFUSED, ""],
            [["fsck", "--repair"], [0, 1], ""],
        ],
    },
}  # fmt: skip


@pytest.mark.row("D1", "it is shown as damaged, all others work, and it can be removed")
@pytest.mark.row("D2", "newer formats are refused, unknown fields are left alone")
@pytest.mark.parametrize("name", OBJECTS)
def test_d1_damaged_files(rig: Machine, name: str) -> None:
    if not rig.has_root:
        pytest.skip("gives files to other users")
    wanted = dict(OBJECTS[name])
    wanted |= {"step": effort(997, 1) * wanted.pop("coarse", 1), "every": nightly()}
    wanted |= {"share": effort(5, 1), **sampled(3)}
    found = driving.drive(rig, "damager", {"objects": [wanted]}, LIMIT_S)
    tell(f"damage, {name}", seed=wanted["seed"], **{k: found[k] for k in ("points", "tried")})
    assert not found["failures"], "\n".join(found["failures"])
    assert found["tried"] > 1
