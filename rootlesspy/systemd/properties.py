"""Understand `--property KEY=VALUE` the way `systemd-run --scope --property` does.

A table from setting to parser; each parser gives the properties that go over the bus, whose names
and units differ at times (CPUQuota=50% is CPUQuotaPerSecUSec=500000).  Settings that take effect
only under the system manager's own privileges and hand over kernel objects (BPFProgram, NFTSet,
IPIngressFilterPath, SocketBindAllow, RestrictNetworkInterfaces) are not in it.

Manuals: systemd.resource-control(5), systemd.scope(5), systemd.kill(5), systemd.unit(5).
"""

from __future__ import annotations

from rootlesspy.errors import UsageError
from rootlesspy.light_typing import TYPE_CHECKING
from rootlesspy.systemd import values
from rootlesspy.systemd.bus import Property

if TYPE_CHECKING:
    from collections.abc import Callable

INFINITY = values.INFINITY


def parse_assignment(text: str) -> tuple[Property, ...]:
    """Parse KEY=VALUE into properties; raises UsageError for an unknown key or a bad value."""
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise UsageError(
            f"property {text} is not of the form KEY=VALUE", hint="--property MemoryHigh=512M"
        )
    parse = _TABLE.get(key)
    if parse is None:
        raise UsageError(f"{key} is not a property of a scope", hint=_near(key))
    if "\0" in value:
        raise UsageError(f"property {key} holds a NUL character")
    try:
        return parse(key, value)
    except ValueError as error:
        raise UsageError(
            f"property {text}: {error}", hint="man systemd.resource-control"
        ) from error


def _near(key: str) -> str:
    """List the settings that may have been meant."""
    # Imported here: only an error pays for it.
    import difflib

    folded = {name.lower(): name for name in _TABLE}
    close = difflib.get_close_matches(key.lower(), folded, n=4, cutoff=0.6)
    if close:
        return f"did you mean {', '.join(folded[name] for name in close)}?"
    return "man systemd.resource-control, systemd.scope, systemd.kill"


def _text(key: str, value: str) -> tuple[Property, ...]:
    return (Property(key, "s", value),)


def _flag(key: str, value: str) -> tuple[Property, ...]:
    return (Property(key, "b", values.boolean(value)),)


def _limit(key: str, value: str) -> tuple[Property, ...]:
    """Parse a size, a count (TasksMax), a percentage, infinity, or nothing for the default."""
    if value == "infinity":
        return (Property(key, "t", INFINITY),)
    if not value:
        lowest = key.endswith(("Low", "Min"))
        return (Property(key, "t", 0 if lowest else INFINITY),)
    if value.endswith(("%", "‰", "‱")):
        return (Property(f"{key}Scale", "u", values.scale(values.permyriad(value))),)
    number = values.integer(value) if key == "TasksMax" else values.size(value)
    return (Property(key, "t", number),)


def _weight(key: str, value: str) -> tuple[Property, ...]:
    if key.endswith("CPUWeight") and value == "idle":
        return (Property(key, "t", 0),)
    number = values.integer(value, low=1, high=10_000) if value else INFINITY
    return (Property(key, "t", number),)


def _cpu_shares(key: str, value: str) -> tuple[Property, ...]:
    number = values.integer(value, low=2, high=262_144) if value else INFINITY
    return (Property(key, "t", number),)


def _block_weight(key: str, value: str) -> tuple[Property, ...]:
    number = values.integer(value, low=10, high=1000) if value else INFINITY
    return (Property(key, "t", number),)


def _cpu_quota(key: str, value: str) -> tuple[Property, ...]:
    del key
    quota = INFINITY
    if value:
        quota = values.permyriad(value, bounded=False) * 100
        if quota == 0:
            raise ValueError("must be more than 0%")
    return (Property("CPUQuotaPerSecUSec", "t", quota),)


def _cpu_period(key: str, value: str) -> tuple[Property, ...]:
    del key
    return (Property("CPUQuotaPeriodUSec", "t", values.span_us(value) if value else INFINITY),)


def _span(key: str, value: str) -> tuple[Property, ...]:
    return (Property(f"{key.removesuffix('Sec')}USec", "t", values.span_us(value)),)


def _cpus(key: str, value: str) -> tuple[Property, ...]:
    return (Property(key, "ay", values.mask(values.cpus(value))),)


def _words(key: str, value: str) -> tuple[Property, ...]:
    return (Property(key, "as", values.words(value)),)


def _signal(key: str, value: str) -> tuple[Property, ...]:
    return (Property(key, "i", values.signal_number(value)),)


def _delegate(key: str, value: str) -> tuple[Property, ...]:
    """Parse yes or a list of controllers; the payload's sub-cgroup needs delegation."""
    try:
        delegated = values.boolean(value)
    except ValueError:
        return (Property("DelegateControllers", "as", values.words(value)),)
    if not delegated:
        raise ValueError("a container's scope is always delegated")
    return (Property(key, "b", delegated),)


def _pressure_limit(key: str, value: str) -> tuple[Property, ...]:
    return (Property(key, "u", values.scale(values.permyriad(value))),)


def _device_allow(key: str, value: str) -> tuple[Property, ...]:
    path, _, access = value.partition(" ")
    return (Property(key, "a(ss)", [(path, access)] if value else []),)


def _device_pair(value: str, example: str) -> tuple[str, str]:
    path, separator, setting = value.partition(" ")
    if not separator or not path:
        raise ValueError(f"must be a device or directory and a value, like {example}")
    return path, setting.strip()


def _io_limit(key: str, value: str) -> tuple[Property, ...]:
    if not value:
        return (Property(key, "a(st)", []),)
    path, rate = _device_pair(value, "/dev/sda 10M")
    number = INFINITY if rate == "infinity" else values.size(rate, base=1000)
    return (Property(key, "a(st)", [(path, number)]),)


def _io_weight(key: str, value: str) -> tuple[Property, ...]:
    if not value:
        return (Property(key, "a(st)", []),)
    path, weight = _device_pair(value, "/dev/sda 100")
    return (Property(key, "a(st)", [(path, values.integer(weight, low=1, high=10_000))]),)


def _io_latency(key: str, value: str) -> tuple[Property, ...]:
    name = f"{key.removesuffix('Sec')}USec"
    if not value:
        return (Property(name, "a(st)", []),)
    path, span = _device_pair(value, "/dev/sda 20ms")
    return (Property(name, "a(st)", [(path, values.span_us(span))]),)


def _addresses(key: str, value: str) -> tuple[Property, ...]:
    found = [each for word in value.split() for each in values.address_prefixes(word)]
    return (Property(key, "a(iayu)", found),)


_TABLE: dict[str, Callable[[str, str], tuple[Property, ...]]] = {
    name: parse
    for parse, names in (
        (_limit, """MemoryMin MemoryLow MemoryHigh MemoryMax MemorySwapMax MemoryZSwapMax
            MemoryLimit DefaultMemoryLow DefaultMemoryMin TasksMax"""),
        (_weight, "CPUWeight StartupCPUWeight IOWeight StartupIOWeight"),
        (_cpu_shares, "CPUShares StartupCPUShares"),
        (_block_weight, "BlockIOWeight StartupBlockIOWeight"),
        (_cpu_quota, "CPUQuota"),
        (_cpu_period, "CPUQuotaPeriodSec"),
        (_cpus, "AllowedCPUs StartupAllowedCPUs AllowedMemoryNodes StartupAllowedMemoryNodes"),
        (_io_limit, """IOReadBandwidthMax IOWriteBandwidthMax IOReadIOPSMax IOWriteIOPSMax
            BlockIOReadBandwidth BlockIOWriteBandwidth"""),
        (_io_weight, "IODeviceWeight BlockIODeviceWeight"),
        (_io_latency, "IODeviceLatencyTargetSec"),
        (_pressure_limit, "ManagedOOMMemoryPressureLimit"),
        (_device_allow, "DeviceAllow"),
        (_addresses, "IPAddressAllow IPAddressDeny"),
        (_delegate, "Delegate"),
        (_signal, "KillSignal RestartKillSignal FinalKillSignal WatchdogSignal"),
        (_span, """MemoryPressureThresholdSec ManagedOOMMemoryPressureDurationSec RuntimeMaxSec
            RuntimeRandomizedExtraSec TimeoutStopSec JobRunningTimeoutSec"""),
        (_flag, """CPUAccounting MemoryAccounting IOAccounting BlockIOAccounting TasksAccounting
            IPAccounting MemoryZSwapWriteback CoredumpReceive SendSIGHUP SendSIGKILL
            StopWhenUnneeded RefuseManualStop IgnoreOnIsolate DefaultDependencies
            SurviveFinalKillSignal"""),
        (_text, """Slice DevicePolicy ManagedOOMSwap ManagedOOMMemoryPressure ManagedOOMPreference
            MemoryPressureWatch OOMPolicy KillMode Description SourcePath CollectMode
            OnFailureJobMode FailureAction SuccessAction JobTimeoutAction"""),
        (_words, """DisableControllers Documentation Requires Requisite Wants BindsTo PartOf Upholds
            Conflicts Before After OnFailure OnSuccess PropagatesReloadTo ReloadPropagatedFrom
            PropagatesStopTo StopPropagatedFrom RequiresMountsFor WantsMountsFor"""),
    )
    for name in names.split()
}  # fmt: skip
