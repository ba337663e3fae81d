//! How packages come, are followed by newer ones, and go.

use anyhow::{Result, ensure};
use fleetknock_deploy::machine::Machine;

use crate::host;

/// What is not the packages', but would be left by them.
pub(crate) fn users_and_rules(machine: &Machine) -> Result<String> {
    machine.sh(
        "nft list ruleset; ls /etc/systemd/system /etc/systemd/system/multi-user.target.wants /var/lib /etc",
    )
}

pub(crate) fn debs_are_installed(machine: &Machine) -> Result<()> {
    let said = machine.sh("dpkg --install /now/*.deb </dev/null")?;
    ensure!(said.contains("systemctl enable --now fleetknock-agent"), "{said}");
    is_installed_and_idle(machine)
}

pub(crate) fn rpms_are_installed(machine: &Machine) -> Result<()> {
    // Debian's own packages are not in rpm's database.
    let said = machine.sh("rpm --install --nodeps /now/*.rpm")?;
    ensure!(said.contains("systemctl enable --now fleetknock-agent"), "{said}");
    is_installed_and_idle(machine)
}

fn is_installed_and_idle(machine: &Machine) -> Result<()> {
    let files =
        "stat -c '%A %U:%G %n' /usr/bin/fleetknock* /etc/fleetknock /etc/fleetknock/* /var/lib/fleetknock";
    let files = machine.sh(files)?;
    let wanted = [
        "-rwxr-xr-x root:root /usr/bin/fleetknock",
        "-rwxr-xr-x root:root /usr/bin/fleetknock-agent",
        "-rwxr-xr-x root:root /usr/bin/fleetknock-controller",
        "drwxr-xr-x root:root /etc/fleetknock",
        "-rw-r--r-- root:root /etc/fleetknock/agent.yaml",
        "-rw-r--r-- root:root /etc/fleetknock/controller.yaml",
        "drwxr-x--- root:fleetknock /etc/fleetknock/tls",
        "drwxr-xr-x root:root /var/lib/fleetknock",
    ];
    ensure!(files.lines().eq(wanted), "{files}");
    for name in ["agent", "controller"] {
        let groups = machine.sh(&format!("id --name --groups fleetknock-{name}"))?;
        ensure!(groups.trim() == "fleetknock", "{groups}");
        machine.sh(&format!(
            "! systemctl is-enabled fleetknock-{name} && ! systemctl is-active fleetknock-{name}"
        ))?;
        machine.sh(&format!("gzip --test /usr/share/man/man8/fleetknock-{name}.8.gz"))?;
    }
    machine.sh("bash -n /usr/share/bash-completion/completions/fleetknock").map(drop)
}

pub(crate) fn upgrade_keeps_guard(machine: &Machine, upgrade: &str) -> Result<()> {
    let main = "systemctl show --value -p MainPID fleetknock-agent";
    let old = machine.sh(main)?;
    host::is_guarded(machine)?;
    machine.sh(&host::probed_during(upgrade))?;
    let new = machine.sh(main)?;
    ensure!(new != old && new.trim() != "0", "the agent runs on as {old}");
    machine
        .sh("systemctl is-active fleetknock-agent && grep -q '^host: edge-1' /etc/fleetknock/agent.yaml")?;
    host::is_guarded(machine)
}

pub(crate) fn removal_lifts_the_guard(machine: &Machine, removal: &str) -> Result<()> {
    let said = machine.sh(removal)?;
    ensure!(said.contains("lifting the guard") && said.contains("the guard is lifted"), "{said}");
    host::is_open(machine)?;
    let rules = machine.sh("nft list ruleset; ls /usr/bin")?;
    ensure!(!rules.contains("inet fleetknock") && !rules.contains("fleetknock-agent"), "{rules}");
    machine.sh("! systemctl is-active fleetknock-agent").map(drop)
}

pub(crate) fn installed_again_it_goes_on(machine: &Machine) -> Result<()> {
    machine.sh("dpkg --install /now/fleetknock-agent_*.deb </dev/null")?;
    machine.sh("systemctl enable --now fleetknock-agent")?;
    host::eventually(machine, "nft list set inet fleetknock guard | grep -q 8022")?;
    host::is_guarded(machine)
}

pub(crate) fn purge_leaves_nothing(machine: &Machine, before: &str) -> Result<()> {
    let said = machine.sh("dpkg --purge fleetknock-agent </dev/null")?;
    ensure!(said.contains("the guard is lifted"), "{said}");
    host::is_open(machine)?;
    // The controller's is its own.
    machine.sh(
        "systemctl is-active fleetknock-controller && test -s /var/lib/fleetknock/controller/store.redb",
    )?;
    machine.sh("dpkg --purge fleetknock-controller fleetknock </dev/null")?;
    let left = machine.sh("find / -xdev -name '*fleetknock*' ! -path '/now/*' ! -path '/next/*'")?;
    ensure!(left.is_empty(), "{left}");
    let after = users_and_rules(machine)?;
    ensure!(after == before, "before:\n{before}\nafter:\n{after}");
    Ok(())
}

pub(crate) fn erased_rpms_leave_what_was_edited(machine: &Machine) -> Result<()> {
    machine.sh("rpm --erase --nodeps fleetknock-controller fleetknock")?;
    let left = machine.sh("find /etc/fleetknock /var/lib/fleetknock -type f | sort; ls /usr/bin")?;
    ensure!(
        left.starts_with("/etc/fleetknock/agent.yaml.rpmsave\n/etc/fleetknock/controller.yaml.rpmsave"),
        "{left}"
    );
    ensure!(!left.contains("\nfleetknock"), "{left}");
    Ok(())
}
