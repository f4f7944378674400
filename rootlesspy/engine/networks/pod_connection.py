"""`rp network connect` and `disconnect` of a pod: its networks are those of all its members."""

from __future__ import annotations

from rootlesspy.engine.networks import leases, membership
from rootlesspy.engine.output import events
from rootlesspy.engine.pods import client, etc, store
from rootlesspy.engine.views import stats
from rootlesspy.errors import Conflict, UsageError
from rootlesspy.light_typing import TYPE_CHECKING
from rootlesspy.network import driver
from rootlesspy.network.namespace import Namespace

if TYPE_CHECKING:
    from rootlesspy.engine.pods.store import Pod
    from rootlesspy.network.attachment import Attachment
    from rootlesspy.network.networks import Network
    from rootlesspy.paths import Paths

# They have the network of the host, or are to have none.
_WITHOUT = ("host", "none")


def connect(paths: Paths, network: Network, pod: Pod, wanted: Attachment) -> None:
    """Connect a pod with one more network, at once if it runs, and at each later start.

    Raises Conflict (it is in the network, an address is taken), UsageError.
    """
    request = driver.restore(pod.network)
    if "network" not in pod.share:
        raise UsageError(f"pod {pod.name} shares no network", hint="rp pod create --share net")
    if any(each.name == network.name for each in request.networks):
        raise Conflict(f"pod {pod.name} is in network {network.name} already")
    if request.driver in _WITHOUT and (request.chosen or not request.networks):
        raise UsageError(
            f"pod {pod.name} has --network {request.driver}",
            hint=f"rp pod create it with --network {network.name}",
        )
    changed = _with(pod, (*request.networks, wanted))
    handed = client.running(paths, pod)
    if handed is not None:
        try:
            _connect_live(paths, network, wanted, pod, handed)
        finally:
            handed.close()
    store.save(paths, changed)
    if handed is not None:
        etc.refresh(paths, changed)
    events.send("network", "connect", name=network.name, id=network.id)


def disconnect(paths: Paths, network: str, pod: Pod) -> None:
    """Disconnect a pod from a network, at once if it runs, and for good.

    Raises Conflict (it is not in it), RuntimeFailure.
    """
    request = driver.restore(pod.network)
    kept = tuple(each for each in request.networks if each.name != network)
    if kept == request.networks:
        raise Conflict(f"pod {pod.name} is not in network {network}")
    changed = _with(pod, kept)
    if store.is_held(paths, pod.name):
        membership.leave_one(paths, network, pod.id)
        etc.refresh(paths, changed)
    store.save(paths, changed)
    events.send("network", "disconnect", name=network)


def _connect_live(
    paths: Paths, network: Network, wanted: Attachment, pod: Pod, handed: client.Handed
) -> None:
    """Give a running pod its interface.  Raises Conflict, RuntimeFailure, OSError."""
    held = stats.network(handed.pid)
    if wanted.interface in held:
        raise Conflict(f"pod {pod.name} has an interface {wanted.interface}")
    interface = wanted.interface or next(
        name for number in range(len(held) + 1) if (name := f"eth{number}") not in held
    )
    membership.reserve_one(paths, network, wanted, pod, interface, pod=pod.name)
    opened = Namespace(handed.fds["user"], handed.fds["network"])
    try:
        membership.join_opened(paths, network.name, pod.id, handed.pid, opened)
    except BaseException:
        leases.release(paths, network.name, pod.id)
        raise


def _with(pod: Pod, attachments: tuple[Attachment, ...]) -> Pod:
    request = driver.restore(pod.network)._replace(networks=attachments)
    return pod._replace(network=dict(request._asdict()))
