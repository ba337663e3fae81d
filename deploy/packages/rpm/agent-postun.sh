# After an upgrade ($1 = 1) a running agent is restarted; guard stays in the kernel meanwhile.
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || true
    if [ "$1" -ge 1 ]; then
        systemctl try-restart fleetknock-agent.service || true
    fi
fi
