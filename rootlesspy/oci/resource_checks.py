"""Check linux.resources: of a config.json, or what `update` is given."""

from __future__ import annotations

from rootlesspy.oci.checks import (
    boolean,
    device_number,
    i64,
    integer,
    line,
    list_of,
    map_of,
    non_empty,
    object_of,
    one_of,
    text,
    u16,
    u32,
    u64,
)

_numbered = {"major": device_number, "minor": device_number}
_throttle = list_of(object_of({**_numbered, "rate": u64}, {}))
_weights = {"weight": u16, "leafWeight": u16}
_throttles = ("throttleReadBpsDevice", "throttleWriteBpsDevice", "throttleReadIOPSDevice")
resources = object_of(
    {},
    {
        "devices": list_of(
            object_of({"allow": boolean}, {"type": one_of("acb"), "access": text, **_numbered})
        ),
        "memory": object_of(
            {},
            dict.fromkeys(("limit", "reservation", "swap", "kernel", "kernelTCP"), i64)
            | {"swappiness": integer(0, 100)}
            | dict.fromkeys(("disableOOMKiller", "useHierarchy", "checkBeforeUpdate"), boolean),
        ),
        "cpu": object_of(
            {},
            dict.fromkeys(("shares", "burst", "period", "realtimePeriod"), u64)
            | dict.fromkeys(("quota", "realtimeRuntime", "idle"), i64)
            | {"cpus": text, "mems": text},
        ),
        "pids": object_of({"limit": i64}, {}),
        "blockIO": object_of(
            {},
            {**_weights, "weightDevice": list_of(object_of(_numbered, _weights))}
            | dict.fromkeys((*_throttles, "throttleWriteIOPSDevice"), _throttle),
        ),
        "hugepageLimits": list_of(object_of({"pageSize": non_empty, "limit": u64}, {})),
        "network": object_of(
            {},
            {
                "classID": u32,
                "priorities": list_of(object_of({"name": non_empty, "priority": u32}, {})),
            },
        ),
        "rdma": map_of(object_of({}, {"hcaHandles": u32, "hcaObjects": u32})),
        "unified": map_of(line, key=non_empty),
    },
)
