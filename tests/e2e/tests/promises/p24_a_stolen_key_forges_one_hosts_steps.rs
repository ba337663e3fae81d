//! Promise 24: whoever has one agent's key can forge that host's steps and no other's. For a door over three hosts it is
//! worth one step: alone it opens nothing, whatever it reports; with real knocks at the two other hosts it opens, as if
//! its host had been knocked at.

use anyhow::{Context, Result, ensure};
use fleetknock_e2e::{Family, MIXED, Three};
use fleetknock_lab::{Fleet, Lab, Pki, StolenAgent};

#[test]
fn and_no_others() -> Result<()> {
    Lab::scenario("stolen", |lab| {
        let pki = Pki::create(lab, "fleet", "blue")?;
        let three = Three::with(lab, Fleet::start_trusted(lab, &pki)?, MIXED)?;
        three.apply(60)?;
        let controller = &three.fleet.controllers()[0];
        let thief = lab.client("thief")?;
        let key = three.edge.identity()?.clone();
        // Who took the key stopped the agent, too: two of one name would push each other out.
        three.edge.kill()?;
        let attached = StolenAgent::attach(&thief, controller, &key, three.edge.host().name())?;
        let mut stolen = attached.context("a good key is refused")?;

        let knock = three.knock(Family::V4);
        // All steps, as they are; all, as if each had been seen at this host; backwards; and each on its own, again.
        let at_edge: Vec<_> = knock.iter().map(|shot| at(three.edge.host().v4(), *shot)).collect();
        let backwards: Vec<_> = knock.iter().rev().copied().collect();
        for (number, forged) in [&knock, &at_edge, &backwards].into_iter().enumerate() {
            let source = lab.client(&format!("beneficiary-{number}"))?;
            stolen.report(source.v4(), forged)?;
            for shot in forged {
                stolen.report(source.v4(), &[*shot])?;
            }
            // Somebody else's knock with a forged first step opens: what was reported before has been followed by then.
            let witness = lab.client(&format!("witness-{number}"))?;
            stolen.report(witness.v4(), &knock[..1])?;
            witness.knock(None, &knock[1..])?;
            three.wait_open(&witness, None, Family::V4).context("a forged step and two real ones open")?;
            three.all_closed(&source, None, Family::V4)?;
            ensure!(
                three.openings_ever(Some(source.v4()))? == 0,
                "forged steps alone opened for {}",
                source.v4()
            );
        }
        // It is worth its own step only: with one real knock of two, nothing opens.
        let half = lab.client("half")?;
        stolen.report(half.v4(), &knock[..1])?;
        half.knock(None, &knock[1..2])?;
        stolen.report(half.v4(), &knock[2..])?;
        let witness = lab.client("witness")?;
        stolen.report(witness.v4(), &knock[..1])?;
        witness.knock(None, &knock[1..])?;
        three.wait_open(&witness, None, Family::V4)?;
        ensure!(three.openings_ever(Some(half.v4()))? == 0, "two forged steps and a real one opened");
        Ok(())
    })
}

/// The same shot at another host.
fn at(host: std::net::IpAddr, shot: fleetknock_lab::Shot) -> fleetknock_lab::Shot {
    use fleetknock_lab::Shot::{Tcp, Udp};
    let to = |port| std::net::SocketAddr::new(host, port);
    match shot {
        Tcp(aim) => Tcp(to(aim.port())),
        Udp(aim) => Udp(to(aim.port())),
    }
}
