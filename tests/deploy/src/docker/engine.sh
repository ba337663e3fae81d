# Runs a Docker engine that touches nothing of this machine: engine.sh FOLDER DATA. It is the first process of a mount and
# a PID namespace: what it started ends with it. The engine has a network namespace of its own, so that its bridges,
# addresses, firewall rules and forwarding are nobody else's; slirp4netns lets it reach the outside as a process can.
# It ends when its standard input does, which happens also when whoever started it was killed.
set -eu
folder=$1 data=$2
exec 3<&0

touch "$folder/net"
unshare --net="$folder/net" true
slirp4netns --netns-type=path --configure --mtu=65520 --disable-host-loopback "$folder/net" tap0 &
echo 'nameserver 10.0.2.3' >"$folder/resolv.conf"

# /etc/resolv.conf often is a link into /run, which the engine gets for itself.
export folder data
nsenter --net="$folder/net" unshare --mount sh -euc '
    ip link set lo up
    names=$(readlink -m /etc/resolv.conf)
    mount -t tmpfs tmpfs /run
    mkdir -p "${names%/*}"
    [ -e "$names" ] || touch "$names"
    mount --bind "$folder/resolv.conf" "$names"
    exec dockerd --host "unix://$folder/docker.sock" --data-root "$data" --exec-root "$folder/exec" \
        --pidfile "$folder/pid" --exec-opt native.cgroupdriver=cgroupfs
' &
engine=$!
{ cat <&3 >/dev/null; kill "$engine"; } &
wait "$engine" || true
# Whoever started it may be gone, and with it whoever would take the folder away.
umount "$folder/net" && rm -rf --one-file-system "$folder" || true
