"""`rp run` for typer: what its options mean, in the words of `--help` and the manual page."""

from __future__ import annotations

from rootlesspy.cli import argv, hot
from rootlesspy.cli import light_typer as typer
from rootlesspy.cli.light_typer import Help, table_options

_BASIC, _FILES, _LIMITS = "Container", "Files", "Limits"
_NETWORK, _SECURITY, _HEALTH, _IMAGE = "Network", "Security", "Health", "Image"
PANELS = (_BASIC, _FILES, _NETWORK, _LIMITS, _SECURITY, _HEALTH, _IMAGE)

HELPS = {
    "image": Help("", "IMAGE", "Image to run, or with --rootfs a directory."),
    "command": Help("", "[COMMAND]...", "Command and arguments instead of the image's own."),
    "add_host": Help(
        _NETWORK, "NAME:IP", "Add a line to /etc/hosts; host-gateway is the host's address."
    ),
    "annotation": Help(
        _BASIC, "KEY=VALUE", "Set an annotation in config.json, by which hooks are chosen."
    ),
    "cap_add": Help(_SECURITY, "CAP,…", "Add capabilities, or ALL."),
    "cap_drop": Help(_SECURITY, "CAP,…", "Drop capabilities, or ALL."),
    "cgroups": Help(
        _LIMITS, "MODE", "enabled, or disabled: run without a systemd scope and its limits."
    ),
    "cgroupns": Help(
        _SECURITY, "MODE", "private (default): its cgroup is the root; host: it sees the host's."
    ),
    "cidfile": Help(_BASIC, "FILE", "Write the container's id to a new file."),
    "cpu_shares": Help(_LIMITS, "SHARES", "Relative CPU weight, 2 to 262144 (CPUWeight=)."),
    "cpus": Help(_LIMITS, "NUMBER", "CPU time per second of time, such as 1.5 (CPUQuota=)."),
    "cpuset_cpus": Help(_LIMITS, "LIST", "CPUs to run on, such as 0-3,5 (AllowedCPUs=)."),
    "detach": Help(_BASIC, "", "Run it as the service rp-NAME.service and print its id."),
    "detach_keys": Help(
        _BASIC, "KEYS", "Keys that leave the container running; default ctrl-p,ctrl-q."
    ),
    "device": Help(
        _SECURITY, "HOST:CTR:rwm", "Show a device of the host; VENDOR/CLASS=NAME: as CDI files say."
    ),
    "device_cgroup_rule": Help(_SECURITY, "RULE", "Refused: only root can rule over devices."),
    "dns": Help(_NETWORK, "IP", "Name server, or none to keep the image's resolv.conf."),
    "dns_option": Help(_NETWORK, "OPTION", "Option of resolv.conf, such as ndots:2."),
    "dns_search": Help(_NETWORK, "DOMAIN", "Search domain; a dot alone means none."),
    "entrypoint": Help(
        _BASIC, "COMMAND", "Program, or JSON array, instead of the image's entrypoint."
    ),
    "env": Help(
        _BASIC, "KEY=VALUE", "Set a variable; KEY alone takes yours, PREFIX* all that begin so."
    ),
    "env_file": Help(_BASIC, "FILE", "Read variables from a file, one KEY=VALUE per line."),
    "gpus": Help(_SECURITY, "GPU,…", "GPUs, or all: short for --device nvidia.com/gpu=…"),
    "gidmap": Help(
        _SECURITY, "CTR:FROM:N", "Line of its gid map; that of the uids alone counts for both."
    ),
    "group_add": Help(
        _SECURITY, "GROUP", "Add a supplementary group of the image, or an id; keep-groups: yours."
    ),
    "health_cmd": Help(
        _HEALTH, "COMMAND", "Check whether it is healthy: text for a shell, or a JSON array; none."
    ),
    "health_interval": Help(
        _HEALTH, "TIME", "Time from one check to the next, default 30s; disable: only by hand."
    ),
    "health_max_log_count": Help(_HEALTH, "NUMBER", "Checks remembered, default 5; 0: 50."),
    "health_max_log_size": Help(
        _HEALTH, "NUMBER", "Characters kept of a check's output, default 500; 0: 65536."
    ),
    "health_on_failure": Help(
        _HEALTH, "ACTION", "When it becomes unhealthy: none (default), kill, restart or stop."
    ),
    "health_retries": Help(_HEALTH, "NUMBER", "Failures in a row that mean unhealthy, default 3."),
    "health_start_interval": Help(
        _HEALTH, "TIME", "Time between checks within the start period, default 5s."
    ),
    "health_start_period": Help(
        _HEALTH, "TIME", "Time to start, in which failures do not count, default 0s."
    ),
    "health_startup_cmd": Help(
        _HEALTH, "COMMAND", "Check that runs first, until it passes, instead of the health check."
    ),
    "health_startup_interval": Help(
        _HEALTH, "TIME", "Time from one startup check to the next, default 30s."
    ),
    "health_startup_retries": Help(
        _HEALTH, "NUMBER", "Failed startup checks that restart the container; 0 (default): none do."
    ),
    "health_startup_success": Help(
        _HEALTH, "NUMBER", "Startup checks in a row that must pass, default 1."
    ),
    "health_startup_timeout": Help(
        _HEALTH, "TIME", "Time after which a startup check has failed, default 30s."
    ),
    "health_timeout": Help(_HEALTH, "TIME", "Time after which a check has failed, default 30s."),
    "hooks_dir": Help(
        _BASIC, "DIR", "Run the hooks described in this directory's *.json (oci-hooks(5))."
    ),
    "hostname": Help(_NETWORK, "NAME", "The container's host name."),
    "ignore_missing_limits": Help(
        _LIMITS, "", "Run although a limit cannot be applied, and say which."
    ),
    "init": Help(_BASIC, "", "Run a small init as process 1, which reaps and forwards signals."),
    "interactive": Help(_BASIC, "", "Keep standard input open."),
    "ip": Help(_NETWORK, "IP", "IPv4 address in its user-defined network."),
    "ip6": Help(_NETWORK, "IP", "IPv6 address in its user-defined network."),
    "ipc": Help(
        _SECURITY,
        "MODE",
        "shareable (default), private, none (no /dev/shm), host, container:NAME or ns:PATH.",
    ),
    "label": Help(_BASIC, "KEY=VALUE", "Set a label."),
    "label_file": Help(_BASIC, "FILE", "Read labels from a file, one KEY=VALUE per line."),
    "landlock": Help(
        _SECURITY, "RULE,…", "All else is denied: ro=PATH, rw=PATH, net=connect:PORT, net=none, …"
    ),
    "log_driver": Help(
        _BASIC, "DRIVER", "journald (default with -d), json-file, none, or passthrough."
    ),
    "log_opt": Help(
        _BASIC, "KEY=VALUE", "tag=TEXT; of json-file also max-size=SIZE, max-file=N, path=FILE."
    ),
    "mac_address": Help(_NETWORK, "MAC", "MAC address in its user-defined network."),
    "memory": Help(_LIMITS, "SIZE", "Memory limit, such as 512m (MemoryMax=)."),
    "memory_reservation": Help(
        _LIMITS, "SIZE", "Memory above which the kernel reclaims first (MemoryLow=)."
    ),
    "memory_swap": Help(
        _LIMITS, "SIZE", "Limit of memory and swap together; -1: any swap (MemorySwapMax=)."
    ),
    "mount": Help(
        _FILES, "type=TYPE,…", "Mount type=bind, volume or tmpfs; source=, target=, ro and more."
    ),
    "name": Help(_BASIC, "NAME", "Name of the container and of its unit rp-NAME.scope."),
    "network": Help(
        _NETWORK, "MODE", "pasta, slirp4netns, host, none or networks (rp network), :OPTION,…"
    ),
    "network_alias": Help(_NETWORK, "NAME", "One more name of it in its user-defined networks."),
    "no_healthcheck": Help(_HEALTH, "", "Do not run the image's health check."),
    "pid": Help(
        _SECURITY, "MODE", "private (default), host, or that of container:NAME or ns:PATH."
    ),
    "pids_limit": Help(
        _LIMITS, "NUMBER", "Processes at most, default 2048; -1: no limit (TasksMax=)."
    ),
    "platform": Help(_IMAGE, "OS/ARCH", "Platform of the image, such as linux/arm64."),
    "privileged": Help(
        _SECURITY, "", "All capabilities of the user namespace, no seccomp, nothing masked."
    ),
    "property": Help(_LIMITS, "KEY=VALUE", "Any property of the scope, as systemd-run takes them."),
    "pod": Help(_NETWORK, "POD", "Pod that it belongs to; new:NAME makes one."),
    "publish": Help(_NETWORK, "IP:PORT:PORT", "Publish a port of the container on the host."),
    "publish_all": Help(
        _NETWORK, "", "Publish the ports that the image exposes on free ports of the host."
    ),
    "pull": Help(_IMAGE, "POLICY", "always, missing (default), never or newer."),
    "quiet": Help(_IMAGE, "", "Do not show the progress of a pull."),
    "read_only": Help(_FILES, "", "Mount the root file system read-only."),
    "restart": Help(
        _BASIC, "POLICY", "no (default), on-failure[:N], always or unless-stopped (Restart=)."
    ),
    "rm": Help(_BASIC, "", "Remove the container when it ends."),
    "rootfs": Help(_IMAGE, "", "IMAGE is a directory to be used as root file system."),
    "sdnotify": Help(
        _BASIC, "WHEN", "When it is ready: runner (default), container, healthy, port:N, log:REGEX."
    ),
    "secret": Help(
        _SECURITY, "NAME", "A secret, as /run/secrets/NAME: NAME[,type=env][,target=…][,uid=…]…"
    ),
    "security_opt": Help(
        _SECURITY,
        "OPTION",
        "seccomp=FILE, no-new-privileges, mask=, unmask=, proc-opts=, apparmor=, label=",
    ),
    "sig_proxy": Help(_BASIC, "", "Pass signals on to it (default, without --detach)."),
    "shm_size": Help(_LIMITS, "SIZE", "Size of /dev/shm, default 64m."),
    "signature_policy": Help(
        _IMAGE, "FILE", "Signature policy for the pull, in place of policy.json."
    ),
    "stop_signal": Help(_BASIC, "SIGNAL", "Signal that asks the container to stop."),
    "stop_timeout": Help(_BASIC, "SECONDS", "Time to stop before it is killed, default 10."),
    "subgidname": Help(_SECURITY, "NAME", "Map the ids of a line of /etc/subgid."),
    "subuidname": Help(_SECURITY, "NAME", "Map the ids of a line of /etc/subuid."),
    "sysctl": Help(_SECURITY, "KEY=VALUE", "Set a sysctl of the container's namespaces."),
    "tmpfs": Help(_FILES, "PATH:OPTIONS", "Mount a tmpfs, with options such as size=64m."),
    "tty": Help(_BASIC, "", "Give the container a terminal."),
    "uidmap": Help(
        _SECURITY, "CTR:FROM:N", "Line of its uid map; FROM 0 is you, 1 your first subordinate id."
    ),
    "ulimit": Help(_LIMITS, "NAME=SOFT:HARD", "Set a resource limit; host: take all of yours."),
    "umask": Help(_SECURITY, "MASK", "File mode mask of the command, default 0022."),
    "user": Help(_SECURITY, "USER:GROUP", "User to run as, name or id."),
    "userns": Help(
        _SECURITY,
        "MODE",
        "host-map: you are root inside (default); keep-id: you keep your id; nomap: nobody is you; "
        "auto: ids of its own; container:NAME.",
    ),
    "uts": Help(
        _SECURITY, "MODE", "Host name: private (default), host, container:NAME or ns:PATH."
    ),
    "verify_always": Help(
        _IMAGE, "", "Before each start, compare the image's unpacked files with their digests."
    ),
    "volume": Help(
        _FILES, "SRC:PATH:OPTIONS", "Mount a directory or a named volume; ro, rw, z, Z, U, noexec…"
    ),
    "workdir": Help(_BASIC, "DIR", "Working directory of the command."),
}


@table_options(argv.RUN, HELPS, PANELS)
def run(context: typer.Context, **_options: object) -> int:
    """Run a command in a new container.

    Pulls the image when it is absent, runs the command as the systemd scope rp-NAME.scope and
    returns the command's own exit code; 125: rp failed, 126: the command cannot be executed,
    127: it was not found, 128+n: it died of signal n.
    """
    return hot.run(argv.Values(context.params), context.obj)
