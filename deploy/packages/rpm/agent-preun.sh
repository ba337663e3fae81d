# Before removing ($1 = 0; 1 is an upgrade): the agent is stopped and the guard lifted; an upgrade lifts nothing.
if [ "$1" = 0 ]; then
    if [ -d /run/systemd/system ]; then
        systemctl --no-reload disable --now fleetknock-agent.service || true
    fi
    # In a chroot the kernel's rules are those of another system, on which this package may well stay.
    if [ "$(stat -L -c %d:%i /)" != "$(stat -L -c %d:%i /proc/1/root/. 2>/dev/null)" ]; then
        echo "fleetknock-agent: removed within a chroot; the kernel's guard is left alone"
    else
        echo "fleetknock-agent: lifting the guard of this host"
        fleetknock-agent lift || echo "fleetknock-agent: the guard may still stand; see deploy/packages/README.md" >&2
    fi
fi
