"""Put images that a test has made into the machine's own registry, as any client would."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

from rig import recipe

if TYPE_CHECKING:
    from rig.machine import Machine
    from rig.ociimage import Blob, Image

# Runs on the machine: the registry listens on its loopback only.
_PUSH = """
import base64, http.client, json, sys
order = json.load(sys.stdin)
host = order["host"]

def send(method, path, body=b"", headers={}):
    connection = http.client.HTTPConnection(host, timeout=100)
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    text = answer.read()
    if answer.status >= 300:
        sys.exit(f"{method} {path}: {answer.status} {text!r}")
    return answer.getheader("Location")

base = "/v2/" + order["repository"]
for digest, data in order["blobs"]:
    place = send("POST", base + "/blobs/uploads/")
    path = "/" + place.partition("://")[2].partition("/")[2] if "://" in place else place
    mark = "&" if "?" in path else "?"
    octets = {"Content-Type": "application/octet-stream"}
    send("PUT", path + mark + "digest=" + digest, base64.b64decode(data), octets)
for tag, media_type, data in order["manifests"]:
    send("PUT", base + "/manifests/" + tag, base64.b64decode(data), {"Content-Type": media_type})
"""


def push(
    rig: Machine, repository: str, tags: dict[str, Image], *, index: Blob | None = None
) -> str:
    """Push images under their tags, and an index as "latest"; return the name to pull."""
    blobs = {
        blob.digest: blob.data for image in tags.values() for blob in (image.config, *image.layers)
    }
    manifests = [
        (tag, image.manifest.media_type, _text(image.manifest.data)) for tag, image in tags.items()
    ]
    if index is not None:
        manifests.append(("latest", index.media_type, _text(index.data)))
    order = {
        "host": recipe.REGISTRY,
        "repository": repository,
        "blobs": [(digest, _text(data)) for digest, data in blobs.items()],
        "manifests": manifests,
    }
    rig.run(["python3", "-I", "-c", _PUSH], input=json.dumps(order))
    # A kept rig has what an earlier run pushed under this name.
    for user in ("alice", "bob"):
        rig.run(["rp", "rmi", "-f", f"docker.io/{repository}"], user=user, check=False)
    return f"docker.io/{repository}"


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
