//! What an installed agent does on its host.

use std::{thread, time::Duration};

use anyhow::{Result, bail, ensure};
use fleetknock_deploy::machine::Machine;

/// The guard's port, to which something listens.
const PROBE: &str = "ip netns exec peer nc -z -w 1 10.9.0.1 8022";
/// The controller of a lab, in plain text on loopback, and the agent that speaks to it.
const SETTINGS: &str = "
cat >>/etc/fleetknock/controller.yaml <<END
name: ctl-1
listen: 127.0.0.1:7600
insecure: true
END
cat >>/etc/fleetknock/agent.yaml <<END
host: edge-1
controller: [http://127.0.0.1:7600]
insecure: true
END
cat >/srv/door.yaml <<END
apiVersion: fleetknock.io/v1
kind: Door
metadata: {name: ssh}
spec:
  knock:
    sequence: [{port: tcp/17412}, {port: tcp/7981}, {port: tcp/51003}]
    within: 60s
  opens: {hosts: {names: [edge-1]}, ports: [tcp/8022], for: 5s}
END
";
/// Somebody outside, and a program that listens on the guard's port.
const NETWORK: &str = "
ip netns list | grep -q peer && exit
ip netns add peer
ip link add eth0 type veth peer name eth0 netns peer
ip address add 10.9.0.1/24 dev eth0
ip link set eth0 up
ip -n peer address add 10.9.0.2/24 dev eth0
ip -n peer link set eth0 up
systemd-run --quiet --unit listener nc -lk 10.9.0.1 8022
";

/// The units are read without a complaint, and are as closed as the README says (systemd-analyze(1), `security`; the
/// threshold is ten times the exposure).
pub(crate) fn units_are_closed(machine: &Machine) -> Result<()> {
    for (name, exposure) in [("agent", 20), ("controller", 11)] {
        let unit = format!("/lib/systemd/system/fleetknock-{name}.service");
        let said = machine.sh(&format!("systemd-analyze verify {unit}"))?;
        ensure!(said.trim().is_empty(), "{said}");
        machine.sh(&format!("systemd-analyze security --offline=true --threshold={exposure} {unit}"))?;
    }
    Ok(())
}

pub(crate) fn settings_that_lack_something_are_said_once(machine: &Machine) -> Result<()> {
    for (name, missing) in [("agent", "host is missing"), ("controller", "--tls-cert")] {
        let check = format!("! fleetknock-{name} --config /etc/fleetknock/{name}.yaml --check-config");
        let said = machine.sh(&check)?;
        ensure!(said.contains(missing), "{said}");
        machine.sh(&format!("! systemctl start fleetknock-{name}"))?;
        let show = format!("systemctl show -p ActiveState -p NRestarts -p ExecMainStatus fleetknock-{name}");
        let state = machine.sh(&show)?;
        // EX_USAGE: what is missing will not come by itself.
        for wanted in ["ActiveState=failed", "NRestarts=0", "ExecMainStatus=64"] {
            ensure!(state.contains(wanted), "{name}: {state}");
        }
        let log = machine.sh(&format!("journalctl --no-pager --unit fleetknock-{name}"))?;
        ensure!(log.contains(missing), "{log}");
    }
    Ok(())
}

/// A port is open to somebody outside, closed by a door, and opened by its knock for a while.
pub(crate) fn guards(machine: &Machine) -> Result<()> {
    machine.sh(SETTINGS)?;
    machine.sh(NETWORK)?;
    machine.sh("systemctl start fleetknock-controller fleetknock-agent")?;
    for name in ["fleetknock-agent", "fleetknock-controller"] {
        let user = machine.sh(&format!("stat -c %U /proc/$(systemctl show --value -p MainPID {name})"))?;
        ensure!(user.trim() == name, "{name} runs as {user}");
    }
    eventually(machine, PROBE)?;
    eventually(machine, "fleetknock get hosts --insecure | grep -q connected")?;
    machine.sh("fleetknock apply --insecure -f /srv/door.yaml")?;
    eventually(machine, &format!("! {PROBE}"))?;
    machine.sh(
        "for port in 17412 7981 51003; do ip netns exec peer nc -z -w 1 10.9.0.1 $port || sleep 0.3; done",
    )?;
    eventually(machine, PROBE)?;
    // An opening ends, but a connection that was made through it would not be judged anew: each probe is its own.
    eventually(machine, &format!("! {PROBE}"))
}

/// As after a boot: the kernel has no rule, and no controller can be reached.
pub(crate) fn remembers_its_guard_without_a_controller(machine: &Machine) -> Result<()> {
    machine.sh("systemctl stop fleetknock-controller fleetknock-agent")?;
    is_guarded(machine)?;
    machine.sh("nft delete table inet fleetknock")?;
    machine.sh(PROBE)?;
    machine.sh("systemctl start fleetknock-agent")?;
    is_guarded(machine)?;
    let before = "systemctl show -p Before fleetknock-agent | grep -q network-pre.target";
    machine.sh(before)?;
    machine.sh("systemctl start fleetknock-controller").map(drop)
}

/// The loop stops: nothing tells systemd that it turns, and the watchdog ends it.
pub(crate) fn is_restarted_when_it_hangs(machine: &Machine) -> Result<()> {
    let main = "systemctl show --value -p MainPID fleetknock-agent";
    let old = machine.sh(main)?;
    machine.sh(&format!("kill -STOP $({main})"))?;
    eventually(machine, &format!("[ $({main}) != {} ] && systemctl is-active fleetknock-agent", old.trim()))?;
    machine.sh("journalctl --no-pager --unit fleetknock-agent | grep -qi 'watchdog timeout'")?;
    is_guarded(machine)
}

/// Nobody gets to the port.
pub(crate) fn is_guarded(machine: &Machine) -> Result<()> {
    machine.sh(&format!("! {PROBE}")).map(drop)
}

/// Everybody gets to the port.
pub(crate) fn is_open(machine: &Machine) -> Result<()> {
    machine.sh(PROBE).map(drop)
}

/// A script that probes the port while another one runs, and fails when it was open once.
pub(crate) fn probed_during(script: &str) -> String {
    format!(
        "(while :; do {PROBE} && echo open; echo probed; done) >/srv/probes 2>&1 &
        probes=$!
        {script}
        sleep 2
        kill $probes
        grep -q probed /srv/probes
        ! grep -q open /srv/probes"
    )
}

/// Tries a script until it works, for two minutes.
pub(crate) fn eventually(machine: &Machine, script: &str) -> Result<()> {
    let mut last = None;
    for _ in 0..240 {
        match machine.sh(script) {
            Ok(_) => return Ok(()),
            Err(error) => last = Some(error),
        }
        thread::sleep(Duration::from_millis(500));
    }
    bail!("it does not come true: {last:?}")
}
