//! Promise 23: whoever speaks does what its certificate says and no more. An agent that says it is another host is cut
//! off and the operator sees it; no agent can ask what operators or controllers ask; a viewer looks, an operator opens,
//! closes and bans, an admin changes doors.

use anyhow::{Result, ensure};
use fleetknock_e2e::{DOOR, MIXED, SOON, Three};
use fleetknock_lab::{Fleet, Lab, Operator, Pki, StolenAgent, wait_until};

/// What `fleetknock` exits with when something is not permitted (sysexits.h, EX_NOPERM).
const NOT_PERMITTED: i32 = 77;
const SOURCE: &str = "198.51.100.7";

#[test]
fn and_no_more() -> Result<()> {
    Lab::scenario("identities", |lab| {
        let pki = Pki::create(lab, "fleet", "blue")?;
        let three = Three::with(lab, Fleet::start_trusted(lab, &pki)?, MIXED)?;
        three.apply(60)?;
        an_agent_is_one_host(&three)?;
        an_agent_is_no_operator_and_no_controller(&three)?;
        users_do_what_their_role_may(&three, &pki)
    })
}

fn an_agent_is_one_host(three: &Three<'_>) -> Result<()> {
    let controller = &three.fleet.controllers()[0];
    let watch = three.fleet.operator().watch()?;
    wait_until("the watcher to be there", SOON, || Ok(watch.is_running() && shows_a_ban(three, &watch)?))?;
    let (edge, db) = (three.edge.host(), three.db.host());
    let refusal = match StolenAgent::attach(edge, controller, three.edge.identity()?, db.name())? {
        Ok(_) => anyhow::bail!("the key of {} speaks for {}", edge.name(), db.name()),
        Err(status) => status.message().to_owned(),
    };
    for named in [edge.name(), db.name(), "its own host"] {
        ensure!(refusal.contains(named), "{refusal}");
    }
    wait_until("the operator to see it", SOON, || {
        let log = watch.log();
        Ok(log
            .lines()
            .any(|line| line.contains(edge.name()) && line.contains(db.name()) && line.contains("cut off")))
    })?;
    ensure!(controller.metric("calls_denied_total", "impostor")? == 1, "it was not counted");
    // The real ones are not touched by that.
    three.fleet.wait_connected(3)?;
    watch.kill()
}

/// A watcher is there once it shows what is done meanwhile.
fn shows_a_ban(three: &Three<'_>, watch: &fleetknock_lab::Process) -> Result<bool> {
    three.fleet.cli_ok(&["ban", SOURCE])?;
    three.fleet.cli_ok(&["unban", SOURCE])?;
    Ok(watch.log().contains(SOURCE))
}

fn an_agent_is_no_operator_and_no_controller(three: &Three<'_>) -> Result<()> {
    let (fleet, agent) = (&three.fleet, three.edge.identity()?);
    let controller = &fleet.controllers()[0];
    let source = three.client.v4();
    let said = |status: tonic::Status| status.message().to_owned();
    let refusal = controller.open_as(Some(agent), DOOR, source)?.map_err(said).err().unwrap_or_default();
    ensure!(refusal.contains("needs") || refusal.contains("is for users"), "{refusal}");
    ensure!(refusal.contains("the certificate is that of host edge-1"), "{refusal}");
    ensure!(fleet.list("openings")?.is_empty(), "an agent opened");
    let refusal = controller.attempts_as(Some(agent), source)?.map_err(said).err().unwrap_or_default();
    ensure!(refusal == "this is for controllers; the certificate is that of host edge-1", "{refusal}");
    ensure!(controller.attempts_as(Some(controller.identity()?), source)?.is_ok(), "no peer is let in");
    // The operator's command does not even show it.
    let output = fleet.operator().with(agent).cli(&["get", "hosts"])?;
    ensure!(output.code != 0 && output.stderr.contains("a user is expected"), "{}", output.stderr);
    Ok(())
}

fn users_do_what_their_role_may(three: &Three<'_>, pki: &Pki) -> Result<()> {
    let fleet = &three.fleet;
    let door = fleet.cli_ok(&["get", "doors", DOOR, "-o", "yaml", "--reveal"])?;
    let user = |name: &str, role: &str| Ok::<_, anyhow::Error>(fleet.operator().with(&pki.user(name, role)?));
    let (vera, oscar, ada) = (user("vera", "viewer")?, user("oscar", "operator")?, user("ada", "admin")?);

    let opens = ["open", DOOR, "--source", SOURCE];
    let closes = ["close", "--source", SOURCE];
    vera.cli_ok(&["get", "openings"])?;
    for order in [&opens[..], &closes, &["ban", SOURCE], &["unban", SOURCE]] {
        refused(&vera, order, "user vera has the role viewer")?;
    }
    ensure!(fleet.list("openings")?.is_empty(), "a viewer opened");
    for order in [&opens[..], &closes, &["ban", SOURCE], &["unban", SOURCE]] {
        oscar.cli_ok(order)?;
    }
    for who in [&vera, &oscar] {
        let refusal = who.apply(&door).err().map(|error| format!("{error:#}")).unwrap_or_default();
        ensure!(refusal.contains("needs the role admin"), "{refusal}");
        refused(who, &["get", "doors", "--reveal"], "needs the role admin")?;
        refused(who, &["delete", "door", DOOR], "needs the role admin")?;
    }
    ada.apply(&door)?;
    ada.cli_ok(&["delete", "door", DOOR])?;
    Ok(())
}

fn refused(operator: &Operator, arguments: &[&str], why: &str) -> Result<()> {
    let output = operator.cli(arguments)?;
    ensure!(output.code == NOT_PERMITTED, "{arguments:?} ended with {}: {}", output.code, output.stderr);
    ensure!(output.stderr.contains(why), "{arguments:?}: {}", output.stderr);
    Ok(())
}
