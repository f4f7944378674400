#!/bin/sh
# The rig's uplink, and another host behind it: `ip netns exec outside COMMAND`.
set -eu
ip netns add outside
ip link add eth0 type veth peer name eth0 netns outside
ip address add 10.99.0.2/24 dev eth0
ip address add fd99::2/64 dev eth0 nodad
ip link set eth0 up
ip -n outside address add 10.99.0.1/24 dev eth0
ip -n outside address add fd99::1/64 dev eth0 nodad
ip -n outside link set eth0 up
ip -n outside link set lo up
ip route add default via 10.99.0.1
ip -6 route add default via fd99::1
