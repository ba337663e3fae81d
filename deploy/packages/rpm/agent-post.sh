# After installing ($1 = 1) or upgrading ($1 = 2): user, directories, and what to do next.
systemd-sysusers fleetknock-agent.conf
systemd-tmpfiles --create fleetknock-agent.conf || true
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || true
fi
if [ "$1" = 1 ]; then
    echo "fleetknock-agent is installed and not started: set /etc/fleetknock/agent.yaml, then run"
    echo "    systemctl enable --now fleetknock-agent"
fi
