# After installing ($1 = 1) or upgrading ($1 = 2): user, directories, and what to do next.
systemd-sysusers fleetknock-controller.conf
systemd-tmpfiles --create fleetknock-controller.conf || true
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || true
fi
if [ "$1" = 1 ]; then
    echo "fleetknock-controller is installed and not started: set /etc/fleetknock/controller.yaml, then run"
    echo "    systemctl enable --now fleetknock-controller"
fi
