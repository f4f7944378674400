#!/bin/sh
# Write a merged tree into a disk image: disk.sh ROOTFS KERNEL UPPER WORK MERGED KERNEL-VERSION DISK
# Runs in a mount namespace of its own: its overlay is gone with it.
set -eu
rootfs=$1 kernel=$2 upper=$3 work=$4 merged=$5 version=$6 disk=$7
mount -t overlay rig -o "lowerdir=$kernel:$rootfs,upperdir=$upper,workdir=$work" "$merged"
chroot "$merged" depmod "$version"
truncate -s 3G "$disk"
# The snapshot is thrown away after each run: nothing reserved.  With a journal: without one a file
# system that has lost its power is damaged itself, and nothing can be said of what is on it.
PATH=$PATH:/usr/sbin:/sbin mke2fs -q -t ext4 -m 0 -J size=16 -d "$merged" "$disk"
