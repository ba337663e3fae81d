//! Promise 22: at every port (a controller's, for agents, operators and other controllers; etcd's) a certificate that is
//! another authority's, expired, not valid yet or another fleet's is refused, and so is none at all, and plain text; the
//! operator reads why. When the authority is replaced, file by file under running programs, knocks open all the while, and
//! once the old one is withdrawn its certificates are refused and the connections that showed them are ended.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use fleetknock_e2e::{Family, MIXED, SOON, Three};
use fleetknock_lab::{Dialled, Fleet, Host, Identity, Lab, Pki, dialled, etcd::Etcd, wait_until};

const FLEET: &str = "blue";

#[test]
fn and_withdrawn_ones_too() -> Result<()> {
    Lab::scenario("certificates", |lab| {
        let (pki, store) = (Pki::create(lab, "fleet", FLEET)?, Pki::create(lab, "store", "store")?);
        let etcd = Etcd::start_trusted(&[lab.host("etcd-1")?], lab.directory(), &store)?;
        let hosts = [lab.host("control-1")?, lab.host("control-2")?];
        let fleet = Fleet::start_several_trusted(lab, &pki, &hosts, &etcd.store(), &etcd.flags())?;
        let three = Three::with(lab, fleet, MIXED)?;
        three.apply(120)?;

        let stranger = &three.stranger;
        let impostors = Pki::create(lab, "impostors", FLEET)?;
        for controller in three.fleet.controllers() {
            let to = controller.host().at(fleetknock_lab::fleet::PORT);
            wrong_ones_are_refused(stranger, to, &pki, &impostors)?;
        }
        let at_etcd = etcd.members()[0].client_port();
        wrong_ones_are_refused(stranger, at_etcd, &store, &Pki::create(lab, "impostors-2", "store")?)?;
        ensure!(Dialled::open(stranger, at_etcd, None, &store)?.is_err(), "etcd takes no certificate");
        ensure!(Dialled::open(stranger, at_etcd, Some(&pki.user("eve", "admin")?), &store)?.is_err(), "etcd");
        operators_read_why(&three, &pki, &impostors)?;
        authorities_are_replaced(lab, &three, &pki)
    })
}

/// For each kind of caller. What a refused one is told is the alert of TLS (RFC 8446 section 6.2).
fn wrong_ones_are_refused(from: &Host, to: SocketAddr, pki: &Pki, impostors: &Pki) -> Result<()> {
    let issue = |pki: &Pki| -> Result<[Identity; 3]> {
        Ok([pki.host("edge-1")?, pki.user("eve", "admin")?, pki.controller("control-9", from.v4())?])
    };
    for good in issue(pki)? {
        ensure!(Dialled::open(from, to, Some(&good), pki)?.is_ok(), "{good:?} is refused at {to}");
    }
    let is_etcd = pki.fleet() != FLEET;
    let wrongs =
        [("another fleet's", "green", -1..1), ("expired", pki.fleet(), -3..-1), ("early", pki.fleet(), 1..3)];
    // For etcd, a fleet is nothing: its authority vouches for nobody else.
    for (what, fleet, days) in wrongs.into_iter().skip(is_etcd.into()) {
        for wrong in issue(pki)? {
            pki.misissue(&wrong, fleet, days.clone())?;
            let refused = Dialled::open(from, to, Some(&wrong), pki)?.err();
            ensure!(refused.is_some(), "{to} takes a certificate that is {what}: {wrong:?}");
        }
    }
    for wrong in issue(impostors)? {
        let refused = Dialled::open(from, to, Some(&wrong), pki)?.err();
        ensure!(refused.is_some(), "{to} takes a certificate of another authority: {wrong:?}");
    }
    ensure!(!dialled::serves_plain_text(from, to)?, "{to} speaks plain text");
    Ok(())
}

fn operators_read_why(three: &Three<'_>, pki: &Pki, impostors: &Pki) -> Result<()> {
    let operator = three.fleet.operator().on(&three.stranger);
    let ask = |identity: &Identity, why: &str| -> Result<()> {
        let output = operator.with(identity).cli(&["get", "doors"])?;
        ensure!(output.code != 0, "{identity:?} is let in");
        ensure!(output.stderr.contains(why), "'{why}' is not in: {}", output.stderr);
        Ok(())
    };
    let foreign = impostors.user("eve", "admin")?;
    ask(&foreign, "is from an authority (CA) that is not trusted here")?;
    // Whoever trusts the right authority and has a certificate of the wrong one.
    foreign.trust(&[pki])?;
    ask(&foreign, "the other side does not trust the authority (CA) of this side's certificate")?;
    for (fleet, days, why) in
        [(FLEET, -3..-1, "expired"), (FLEET, 1..3, "valid only from"), ("green", -1..1, "of another fleet")]
    {
        let wrong = pki.user("eve", "admin")?;
        pki.misissue(&wrong, fleet, days)?;
        ask(&wrong, why)?;
    }
    let url = three.fleet.url();
    let program = operator.command(&[])?[0].clone();
    let plain = [&program, "get", "doors", "--insecure", "--controller", &url.replace("https", "http")];
    let output = three.stranger.run(&plain)?;
    ensure!(output.code != 0 && output.stderr.contains("TLS"), "{}", output.stderr);
    let without = [&program, "get", "doors", "--controller", &url];
    let output = three.stranger.run(&without)?;
    ensure!(output.code != 0 && output.stderr.contains("--tls-cert"), "{}", output.stderr);
    // The handshake is for anybody, because health is; a call is not.
    let bare = three.fleet.controllers()[0].attempts_as(None, three.stranger.v4());
    ensure!(!bare.is_ok_and(|answer| answer.is_ok()), "plain text is answered");
    ensure!(
        operator.with(&pki.user("good", "viewer")?).cli(&["get", "doors"])?.code == 0,
        "nobody is let in"
    );
    Ok(())
}

fn authorities_are_replaced(lab: &Lab, three: &Three<'_>, old: &Pki) -> Result<()> {
    let new = Pki::create(lab, "fleet-2", FLEET)?;
    let controllers = three.fleet.controllers();
    let mut everybody: Vec<(&Identity, fleetknock_lab::Process)> = Vec::new();
    for controller in controllers {
        everybody.push((controller.identity()?, controller.process()?));
    }
    for agent in three.agents() {
        everybody.push((agent.identity()?, agent.process()?));
    }
    let mut knocks = 0;
    let mut opens = |when: &str| -> Result<()> {
        knocks += 1;
        let client = lab.client(&format!("user-{knocks}"))?;
        client.knock(None, &three.knock(Family::V4))?;
        three.wait_open(&client, None, Family::V4).map_err(|error| error.context(format!("a knock {when}")))
    };
    let taken = |what: &str, times: usize, change: &dyn Fn(&Identity) -> Result<()>| -> Result<()> {
        for (identity, _) in &everybody {
            change(identity)?;
        }
        for (identity, process) in &everybody {
            wait_until(&format!("{what} to be taken into use by {identity:?}"), SOON * 4, || {
                Ok(process.log().matches("TLS files taken into use").count() >= times)
            })?;
        }
        Ok(())
    };
    let operator = three.fleet.operator();
    let mine = operator.identity()?.clone();
    let leaver = old.user("leaver", "viewer")?;

    opens("before")?;
    mine.trust(&[old, &new])?;
    taken("the new authority beside the old one", 1, &|identity| identity.trust(&[old, &new]))?;
    opens("while both are trusted")?;
    new.reissue(&mine)?;
    taken("certificates of the new authority", 2, &|identity| new.reissue(identity))?;
    opens("after all have new certificates")?;

    let at = |controller: &fleetknock_lab::Controller| controller.host().at(fleetknock_lab::fleet::PORT);
    let mut lasting = Vec::new();
    for controller in controllers {
        let dialled = Dialled::open(&three.stranger, at(controller), Some(&leaver), &new)?;
        lasting.push(dialled.map_err(anyhow::Error::msg)?);
    }
    mine.trust(&[&new])?;
    taken("the withdrawal of the old authority", 3, &|identity| identity.trust(&[&new]))?;
    opens("after the old authority was withdrawn")?;
    for (dialled, controller) in lasting.into_iter().zip(controllers) {
        dialled.wait_ended(SOON * 4)?;
        let again = Dialled::open(&three.stranger, at(controller), Some(&leaver), &new)?;
        ensure!(again.is_err(), "{} takes a certificate of the old authority", controller.name());
        ensure!(controller.metric("tls_sessions_ended_total", "")? > 0, "no connection was ended");
    }
    three.fleet.wait_connected(3)?;
    opens("when all have connected again")?;
    for (identity, process) in &everybody {
        ensure!(process.is_running(), "{identity:?} did not live through it");
    }
    Ok(())
}
