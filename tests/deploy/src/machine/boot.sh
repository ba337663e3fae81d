# boot.sh TREE FOLDER CGROUP: boots the Debian in TREE, in namespaces of its own, with its own systemd. What it writes goes
# to memory; FOLDER is where that is mounted, and CGROUP what its processes are counted in.
set -e
tree="$1" folder="$2"
if [ "$#" = 3 ]; then
    echo $$ >"$3/cgroup.procs"
    exec setpriv --pdeathsig KILL unshare --mount --pid --net --ipc --uts --cgroup --fork --kill-child \
        sh "$0" "$tree" "$folder"
fi
mount --make-rprivate /
mount -t tmpfs machine "$folder"
mkdir "$folder/upper" "$folder/work" "$folder/root"
mount -t overlay machine -o "lowerdir=$tree,upperdir=$folder/upper,workdir=$folder/work" "$folder/root"
cd "$folder/root"
mount -t proc proc proc
# Nothing of the kernel is set from within.
mount --bind -o ro proc/sys proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=755 tmpfs dev
for device in null zero full random urandom tty; do
    : >"dev/$device"
    mount --bind "/dev/$device" "dev/$device"
done
mkdir dev/pts dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ip link set lo up
mkdir run/outside
pivot_root . run/outside
umount -l /run/outside
rmdir /run/outside
exec env -i container=fleetknock PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd
