"""A document of `rp inspect` as templates see it: structs, maps and moments as podman has them."""

from __future__ import annotations

from rootlesspy.cli.gotemplate_functions import Nil, Record
from rootlesspy.cli.gotime import Time
from rootlesspy.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rootlesspy.light_typing import Any

# Objects whose keys are data; all others have fixed fields.
_MAPS = frozenset(
    (
        "Annotations", "Data", "ExposedPorts", "Labels", "Networks", "PortBindings", "Ports",
        "Pressure", "Sysctls", "Tmpfs", "Volumes",
    )
)  # fmt: skip
_MOMENTS = frozenset(
    ("Created", "StartedAt", "FinishedAt", "CheckpointedAt", "RestoredAt", "Start", "End")
)
_LISTS = frozenset(("Cmd", "Entrypoint", "Log", "OnBuild", "Shell", "VolumesFrom", "Links"))
# podman rewrites these in a template, so that docker's and older scripts work.
_ALIASES = {
    "ID": "Id", "ImageID": "Image", "Names": "Name", "Src": "Source", "Dst": "Destination",
}  # fmt: skip
# Fields that JSON leaves out where they are empty.
_OMITTED: dict[str, Any] = {
    "Name": "", "SizeRw": None, "SizeRootFs": None, "Healthcheck": None, "User": "",
    "ExposedPorts": {}, "Env": [], "Entrypoint": [], "Cmd": [], "Volumes": {}, "WorkingDir": "",
    "Labels": {}, "StopSignal": "", "OnBuild": [], "Shell": [],
}  # fmt: skip


class Fields(Record):
    """A struct of the document."""

    def __missing__(self, name: str) -> Any:
        alias = _ALIASES.get(name)
        if alias is not None and alias in self:
            return self[alias]
        return _OMITTED[name]


def record(value: dict[str, Any]) -> Fields:
    """Return a document for templates."""
    return Fields({key: _field(key, each) for key, each in value.items()})


def _field(key: str, value: Any) -> Any:
    if isinstance(value, dict):
        return (
            {name: _field("", each) for name, each in value.items()}
            if key in _MAPS
            else (record(value))
        )
    if isinstance(value, list):
        return [record(each) if isinstance(each, dict) else each for each in value]
    if value is None:
        return Nil() if key in _LISTS else {} if key in _MAPS else None
    if key in _MOMENTS and isinstance(value, str):
        return Time(value)
    return value
