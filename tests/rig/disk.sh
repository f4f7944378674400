#!/bin/sh
# Write a merged tree into a disk image: disk.sh ROOTFS KERNEL UPPER WORK MERGED KERNEL-VERSION DISK
# Runs in a mount namespace of its own: its overlay is gone with it.
set -eu
rootfs=$1 kernel=$2 upper=$3 work=$4 merged=$5 version=$6 disk=$7
mount -t overlay rig -o "lowerdir=$kernel:$rootfs,upperdir=$upper,workdir=$work" "$merged"
chroot "$merged" depmod "$version"
truncate -s 3G "$disk"
# The snapshot is thrown away after each run: no journal, nothing reserved.
PATH=$PATH:/usr/sbin:/sbin mke2fs -q -t ext4 -m 0 -O '^has_journal' -d "$merged" "$disk"
