# Before removing ($1 = 0; 1 is an upgrade): the controller is stopped.
if [ "$1" = 0 ]; then
    if [ -d /run/systemd/system ]; then
        systemctl --no-reload disable --now fleetknock-controller.service || true
    fi
fi
