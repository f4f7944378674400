"""One [pod.NAME] of a definition: the options of `rp pod create` as keys."""

from __future__ import annotations

import hashlib

from rootlesspy.engine.definitions import definition_schema as schema
from rootlesspy.engine.inputs import options
from rootlesspy.engine.inputs.request import LABEL_FILE, LABEL_HASH, LABEL_NAME, given
from rootlesspy.engine.pods import values
from rootlesspy.light_modules import json
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rootlesspy.engine.inputs.request import RunRequest

    Texts = Callable[[schema.Key, object], str | bool | list[str]]


class PodDefinition(NamedTuple):
    """One [pod.NAME]."""

    name: str
    request: RunRequest
    """With the labels of this definition."""
    share: tuple[str, ...]
    infra: bool
    exit_policy: str
    hash: str
    """Of everything that makes the pod what it is."""


def wanted(name: str, table: Mapping[str, object], texts: Texts, path: str) -> PodDefinition:
    """Return what a pod is to be; texts gives a key's value as the option's texts, path: the file.

    Raises UsageError.
    """
    found = {key.option: texts(key, table[key.name]) for key in schema.POD if key.name in table}
    infra = found.pop("infra", True) is not False
    shared, policy = found.pop("share", None), found.pop("exit_policy", None)
    share = values.parse_share(
        ",".join(shared) or "none" if isinstance(shared, list) else None, infra=infra
    )
    exit_policy = values.parse_exit_policy(policy if isinstance(policy, str) else None)
    request = options.run_request(
        schema.Given({**found, "image": "pod"}), caller_environment={}, directory="/", debug=False
    )
    content = [given(request), share, infra, exit_policy]
    encoded = json.dumps(content, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(encoded.encode()).hexdigest()[:32]
    own = ((LABEL_HASH, digest), (LABEL_FILE, path), (LABEL_NAME, name))
    request = request._replace(name=name, labels=(*request.labels, *own))
    return PodDefinition(name, request, share, infra, exit_policy, digest)
