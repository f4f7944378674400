"""Debian's nginx and PostgreSQL in two containers of one network, with a client on another host.

nginx serves what its container asked of the database; the database lets in whoever has the right
name, which it looks up itself, backwards and forwards (pg_hba.conf).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from namespace.living import rp, until
from namespace.test_dns import IN_OUTSIDE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rig.machine import Machine

# A root file system of both, from the machine's own packages.
MAKE_IMAGE = r"""
set -eu
pg=$(echo /usr/lib/postgresql/*)
version=${pg##*/}
stage=$(mktemp -d)
chmod 755 "$stage"
trap 'rm -rf "$stage"' EXIT
programs="/usr/sbin/nginx /usr/bin/sh /usr/bin/cat /usr/bin/sleep /usr/bin/getent $pg/bin/postgres"
programs="$programs $pg/bin/initdb $pg/bin/psql"
for program in $programs; do
    ldd $program | grep -o '/[^ ]*'
    echo $program
done | sort -u | xargs cp -aL --parents -t "$stage"
cp -aL --parents -t "$stage" /etc/nginx/mime.types /usr/share/postgresql/$version
for object in dict_snowball plpgsql libpqwalreceiver; do
    cp -aL --parents -t "$stage" $pg/lib/$object.so
done
mkdir -m 1777 "$stage/tmp"
mkdir -p "$stage/bin" "$stage/root" "$stage/var/log/nginx" "$stage/var/lib/nginx"
ln -s /usr/bin/sh "$stage/bin/sh"
ln -s $pg/bin "$stage/pg"
printf 'root:x:0:0::/root:/bin/sh\npostgres:x:102:104::/tmp:/bin/sh\n' >"$stage/etc/passwd"
printf 'root:x:0:\npostgres:x:104:\n' >"$stage/etc/group"
tar -C "$stage" -cf /tmp/servers.tar .
"""
DATABASE = """
set -eu
/pg/initdb -D /tmp/data -A trust --no-locale -E UTF8 --no-sync >/tmp/initdb.log
echo 'host all all web trust' >/tmp/data/pg_hba.conf
exec /pg/postgres -D /tmp/data -c fsync=off -c listen_addresses='*' -c unix_socket_directories=/tmp
"""
# Asked for again until the database is there.
WEB = """
set -eu
until /pg/psql -h db -U postgres -Atc "select 'the answer is ' || 6 * 7" >/tmp/index.html; do
    sleep 0.2
done
cat >/tmp/nginx.conf <<END
user root;
daemon off;
pid /tmp/nginx.pid;
error_log stderr;
events {}
http {
    access_log /dev/stdout;
    server { listen 80; listen [::]:80; root /tmp; }
}
END
exec /usr/sbin/nginx -e stderr -c /tmp/nginx.conf
"""
CLIENT = """
import sys, urllib.request
print(urllib.request.urlopen(sys.argv[1], timeout=30).read().decode())
"""


@pytest.fixture(scope="module")
def servers(rig: Machine) -> Iterator[None]:
    """Run both servers."""
    if not rig.has_root:
        pytest.skip("only root can make the image and be on another host")
    found = rig.run(
        ["sh", "-c", "ls /usr/sbin/nginx /usr/lib/postgresql/*/bin/postgres"], check=False
    )
    if found.returncode:
        pytest.skip("this machine has no nginx and PostgreSQL")
    # It does not have to come this way.
    rig.root(["sh", "-c", MAKE_IMAGE])
    rig.run(["rp", "import", "/tmp/servers.tar", "servers"])
    rig.root(["rm", "/tmp/servers.tar"])
    rig.run(["rp", "network", "create", "--subnet", "10.93.1.0/24", "shop"])
    run = ["rp", "run", "-d", "--network", "shop"]
    try:
        database = ["--name", "db", "--user", "postgres", "servers", "sh", "-c", DATABASE]
        rig.run([*run, *database])
        rig.run([*run, "--name", "web", "-p", "8088:80", "servers", "sh", "-c", WEB])
        yield
    finally:
        rp(rig, "rm", "-f", "web", "db")
        rp(rig, "network", "rm", "-f", "shop")


@pytest.mark.usefixtures("servers")
@pytest.mark.parametrize(
    ("url", "client"),
    [("http://10.99.0.2:8088/", "10.99.0.1"), ("http://[fd99::2]:8088/", "fd99::1")],
    ids=["IPv4", "IPv6"],
)
def test_a_client_elsewhere_gets_the_databases_answer(rig: Machine, url: str, client: str) -> None:
    argv = [*IN_OUTSIDE, "python3", "-c", CLIENT, url]
    until(
        lambda: rig.root(argv, check=False).stdout.strip() == "the answer is 42",
        "nginx does not answer; its log: see rp logs web",
    )
    until(
        lambda: f"{client} - - [" in rp(rig, "logs", "web").stdout,
        "the client's address is not in nginx's log",
    )


@pytest.mark.usefixtures("servers")
def test_each_knows_the_other_by_name(rig: Machine) -> None:
    for here, there in (("web", "db"), ("db", "web")):
        address, name = rig.run(["rp", "exec", here, "getent", "hosts", there]).stdout.split()
        assert address.startswith("10.93.1.")
        assert name.startswith(there)


@pytest.mark.usefixtures("servers")
def test_others_are_not_let_in(rig: Machine) -> None:
    """The database goes by names: another container of the network has another one."""
    argv = ["rp", "run", "--rm", "--name", "thief", "--network", "shop", "servers"]
    until(
        lambda: (
            "no pg_hba.conf entry"
            in rp(rig, *argv[1:], "/pg/psql", "-h", "db", "-U", "postgres", "-c", "select 1").stderr
        ),
        "the database does not refuse",
    )
