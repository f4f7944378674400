"""What a rig is made of: Debian packages, and the files written over them.

The one place where packages are listed; the same list serves Debian 12 and 13 and the VM.
"""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import NamedTuple

SUITES = ("trixie", "bookworm")

# fmt: off
PACKAGES = (
    # The machine: a real systemd with user managers.
    "systemd", "systemd-sysv", "dbus", "dbus-user-session", "libpam-systemd", "login",
    # What rp uses.
    "python3", "python3-pystemd", "python3-pyroute2", "python3-typer", "python3-tomli",
    "python3-rich", "python3-urllib3", "python3-zstandard", "libseccomp2", "ca-certificates",
    "python3-dnspython", "python3-cryptography", "gpg", "mmdebstrap",
    "uidmap", "passt", "slirp4netns", "fuse-overlayfs", "catatonit",
    # Peers: to compare with, and to prove that what we write is read by others.
    "podman", "crun", "bubblewrap", "skopeo", "umoci", "docker-registry",
    # Instruments of the tests.
    "kmod", "busybox-static", "strace", "tmux", "procps", "psmisc", "iproute2", "openssl",
)
_ONLY_IN = {
    # What rp uses where it is there; more peers, and real servers: what is asked of them does not
    # depend on the suite.
    "trixie": (
        "python3-isal", "runc", "containerd", "buildah", "nginx-light", "postgresql", "iperf3",
    ),
}

# Work that a fresh machine would begin by itself and no test wants.
MASKED_UNITS = (
    "console-getty.service", "getty.target", "systemd-firstboot.service",
    "ldconfig.service", "systemd-journal-catalog-update.service", "systemd-update-done.service",
    "systemd-logind-varlink.socket", "systemd-pcrphase.service", "systemd-timesyncd.service",
    "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "fstrim.timer",
    "e2scrub_all.timer", "e2scrub_reap.service", "systemd-tmpfiles-clean.timer",
    "podman.service", "podman.socket", "podman-restart.service", "podman-auto-update.timer",
    "podman-auto-update.service", "podman-clean-transient.service", "netavark-dhcp-proxy.socket",
    "containerd.service", "nginx.service", "postgresql.service", "iperf3.service",
)

# In namespaces, what would reach out of them: sysctls, kernel modules and binfmt entries belong
# to the machine below. And what boot.sh has mounted already.
MASKED_IN_NAMESPACES = (
    "systemd-sysctl.service", "systemd-modules-load.service", "systemd-binfmt.service",
    "proc-sys-fs-binfmt_misc.automount", "systemd-udevd.service", "systemd-udev-trigger.service",
    "modprobe@.service",
    "sys-kernel-debug.mount", "sys-kernel-tracing.mount", "sys-kernel-config.mount",
    "sys-fs-fuse-connections.mount", "dev-hugepages.mount", "dev-mqueue.mount", "tmp.mount",
)
# fmt: on


def packages(suite: str) -> tuple[str, ...]:
    """Return the Debian packages of a suite's rig."""
    return PACKAGES + _ONLY_IN.get(suite, ())


class User(NamedTuple):
    """A user of the rig.

    alice is an ordinary user of a well kept machine. bob has neither subordinate ids nor
    lingering: the user of badly kept machines.
    """

    name: str
    uid: int
    subordinate_ids: bool
    linger: bool


ALICE = User(name="alice", uid=1000, subordinate_ids=True, linger=True)
BOB = User(name="bob", uid=1001, subordinate_ids=False, linger=False)
USERS = (ALICE, BOB)

# The rig's own network: eth0 looks like the uplink of any machine, and "another host" lives in
# the network namespace `outside` at the other end.
ADDRESS = "10.99.0.2"
OUTSIDE_ADDRESS = "10.99.0.1"
REGISTRY_PORT = 5000
REGISTRY = f"localhost:{REGISTRY_PORT}"

_READY_SERVICE = """\
# A login session of alice, as a login would make it. The first thing it does is to tell the
# starter of the rig that her user manager is up.
[Unit]
Requires=user@1000.service
After=user@1000.service systemd-user-sessions.service

[Service]
User=alice
PAMName=rig-login
Type=exec
# As on any desktop the bus runs already when the first command comes.
ExecStart=/bin/sh -c 'XDG_RUNTIME_DIR=/run/user/1000 systemctl --user start dbus.service; \
echo "$XDG_SESSION_ID" >/run/rig/ready; exec sleep infinity'

[Install]
WantedBy=multi-user.target
"""

_LOGIN_PAM = """\
account required pam_permit.so
session required pam_unix.so
session required pam_systemd.so class=user type=tty
"""

_REGISTRIES = f"""\
unqualified-search-registries = ["docker.io"]

[[registry]]
prefix = "docker.io"
location = "docker.io"

[[registry.mirror]]
location = "{REGISTRY}"
insecure = true
"""

_REGISTRY_CONFIG = """\
version: 0.1
log: {level: warn, accesslog: {disabled: true}}
storage:
  filesystem: {rootdirectory: /var/lib/docker-registry}
  delete: {enabled: true}
http: {addr: "127.0.0.1:5000"}
"""

# In the virtual machine its first network card leads to the agent (see wire.py) alone.
_AGENT_SERVICE = """\
[Unit]
Before=rig-ready.service user@1000.service
[Service]
Type=exec
ExecStartPre=ip netns add management
ExecStartPre=ip link set eth0 netns management name eth0
ExecStartPre=ip -n management address add 10.0.2.15/24 dev eth0
ExecStartPre=ip -n management link set eth0 up
ExecStartPre=/bin/sh /usr/lib/rig/network
ExecStartPre=install -D -o alice /dev/null /run/rig/ready
ExecStart=python3 -I /usr/lib/rig/wire.py agent
[Install]
WantedBy=multi-user.target
"""


def files() -> dict[str, str]:
    """Return the text files of a rig by absolute path; those below /usr/bin are executable."""
    return {
        "/usr/lib/rig/network": _text("network.sh"),
        "/etc/systemd/system/rig-ready.service": _READY_SERVICE,
        "/etc/pam.d/rig-login": _LOGIN_PAM,
        "/etc/containers/registries.conf.d/rig.conf": _REGISTRIES,
        "/etc/containers/policy.json": '{"default": [{"type": "insecureAcceptAnything"}]}\n',
        "/etc/docker/registry/config.yml": _REGISTRY_CONFIG,
        "/etc/hostname": "rig\n",
        "/etc/hosts": f"127.0.0.1 localhost\n::1 localhost\n{ADDRESS} rig\n"
        f"{OUTSIDE_ADDRESS} outside.test\n",
        "/etc/resolv.conf": f"nameserver {OUTSIDE_ADDRESS}\n",
        "/etc/machine-id": uuid.uuid4().hex + "\n",
        "/etc/fstab": "",
        "/etc/subuid": _subordinate_ids(),
        "/etc/subgid": _subordinate_ids(),
    }


def files_of_vm(token: str) -> dict[str, str]:
    """Return what a virtual machine has besides; `token` is asked for by its agent."""
    return {
        "/etc/systemd/system/rig-agent.service": _AGENT_SERVICE,
        "/usr/lib/rig/wire.py": _text("wire.py"),
        "/usr/lib/rig/token": token,
        # Ten seconds that every logout without linger would take.
        "/etc/systemd/logind.conf.d/rig.conf": "[Login]\nUserStopDelaySec=1\n",
        # No udev: drivers are not loaded by themselves.
        "/etc/modules-load.d/rig.conf": "virtio_net\nveth\ntun\noverlay\n",
    }


def symlinks(*, vm: bool = False) -> dict[str, str]:
    """Return the symbolic links of a rig: path to target."""
    masked = MASKED_UNITS if vm else MASKED_UNITS + MASKED_IN_NAMESPACES
    wanted = ("rig-ready.service", "rig-agent.service") if vm else ("rig-ready.service",)
    units = "/etc/systemd/system"
    links = {f"{units}/{unit}": "/dev/null" for unit in masked}
    links |= {f"{units}/multi-user.target.wants/{unit}": f"{units}/{unit}" for unit in wanted}
    return links


def account_lines(user: User) -> dict[str, str]:
    """Return the line of a user in each account database, by path."""
    return {
        "/etc/passwd": f"{user.name}:x:{user.uid}:{user.uid}::/home/{user.name}:/bin/bash\n",
        "/etc/group": f"{user.name}:x:{user.uid}:\n",
        "/etc/shadow": f"{user.name}:*:19700:0:99999:7:::\n",
        "/etc/gshadow": f"{user.name}:!::\n",
    }


def _subordinate_ids() -> str:
    return "".join(f"{user.name}:100000:65536\n" for user in USERS if user.subordinate_ids)


def _text(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")
