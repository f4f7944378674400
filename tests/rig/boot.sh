#!/bin/sh
# Turn a root file system into a running machine: boot.sh ROOTFS INSTANCE
# Runs as pid 1 of new mount, pid, cgroup, ipc, uts and network namespaces, and becomes systemd.
# Every mount lies in this mount namespace: when the last process dies nothing is left.
set -eu
rootfs=$1
instance=$2
root=$instance/root

mount -t overlay rig -o "lowerdir=$rootfs,upperdir=$instance/upper,workdir=$instance/work" "$root"
# A rootless overlay cannot have its upper directory on another overlay: where users write are
# real directories.
for directory in home var/tmp var/lib/containers; do
    mkdir -p "$root/$directory"
    mount --bind "$instance/real/$directory" "$root/$directory"
done

mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
mount -t sysfs -o nosuid,nodev,noexec sysfs "$root/sys"
mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o nosuid,nodev,mode=755 run "$root/run"
mount -t tmpfs -o nosuid,nodev tmp "$root/tmp"
chmod 1777 "$root/tmp"
mkdir "$root/run/rig"
: >"$root/run/rig/ready"
mount --bind "$instance/ready" "$root/run/rig/ready"

dev=$root/dev
mount -t tmpfs -o nosuid,mode=755 dev "$dev"
mkdir "$dev/net" "$dev/pts" "$dev/shm" "$dev/mqueue"
device() { mknod -m 0666 "$dev/$1" c "$2" "$3"; }
device null 1 3
device zero 1 5
device full 1 7
device random 1 8
device urandom 1 9
device tty 5 0
device fuse 10 229
device net/tun 10 200
ln -s pts/ptmx "$dev/ptmx"
ln -s /proc/self/fd "$dev/fd"
ln -s fd/0 "$dev/stdin"
ln -s fd/1 "$dev/stdout"
ln -s fd/2 "$dev/stderr"
mount -t devpts -o newinstance,nosuid,noexec,gid=5,mode=620,ptmxmode=666 devpts "$dev/pts"
mount -t tmpfs -o nosuid,nodev shm "$dev/shm"
chmod 1777 "$dev/shm"
mount -t mqueue -o nosuid,nodev,noexec mqueue "$dev/mqueue"

cd "$root"
pivot_root . mnt
cd /
PATH=/usr/sbin:/usr/bin:/sbin:/bin
umount -l /mnt
# As systemd leaves it on a real machine; podman refuses anything else.
mount --make-rshared /
hostname rig

sh /usr/lib/rig/network

exec env -i container=rig /lib/systemd/systemd --log-target=journal --show-status=no
