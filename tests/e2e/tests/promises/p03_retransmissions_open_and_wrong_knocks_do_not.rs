//! Promise 3: a knock by a client whose SYNs are retransmitted opens. A knock with one wrong port in between does not,
//! and works when repeated correctly.

use std::time::Duration;

use anyhow::{Result, ensure};
use fleetknock_e2e::{Family, NEAR, Three};
use fleetknock_lab::{Host, Lab, Shot};

#[test]
fn a_blocking_client_opens_one_step_after_the_other() -> Result<()> {
    Lab::scenario("blocking", |lab| {
        let three = Three::guarded(lab, NEAR, 30)?;
        swallow_knocks(&three)?;
        for shot in three.knock(Family::V4) {
            // Gives up after four seconds: the kernel has sent the SYN again by then, after one second and after three.
            three.client.run_with(&connect(shot, "4"), None, Duration::from_secs(10))?;
        }
        three.wait_open(&three.client, None, Family::V4)?;
        ensure!(swallowed(three.bastion.host())? >= 2, "no SYN was retransmitted: the test proves nothing");
        Ok(())
    })
}

#[test]
fn a_client_whose_steps_overlap_their_retransmissions_opens() -> Result<()> {
    Lab::scenario("overlap", |lab| {
        let three = Three::guarded(lab, NEAR, 30)?;
        swallow_knocks(&three)?;
        let mut running = Vec::new();
        for (number, shot) in three.knock(Family::V6).into_iter().enumerate() {
            let host = three.agents()[number].host();
            // The last two steps wait for the retransmission of the step before them, so that it lies in between.
            if number > 0 {
                let before = three.agents()[number - 1].host();
                fleetknock_lab::wait_until("a retransmission", Duration::from_secs(5), || {
                    Ok(swallowed(before)? >= 2)
                })?;
            }
            running.push(three.client.spawn("nc", &connect(shot, "8"))?);
            fleetknock_lab::wait_until(
                "the first SYN",
                Duration::from_secs(5),
                || Ok(swallowed(host)? >= 1),
            )?;
        }
        three.wait_open(&three.client, None, Family::V6)?;
        for process in running {
            process.kill()?;
        }
        Ok(())
    })
}

#[test]
fn one_wrong_port_in_between_does_not_open_and_the_right_knock_then_does() -> Result<()> {
    Lab::scenario("wrong", |lab| {
        let three = Three::guarded(lab, NEAR, 30)?;
        let (witness_one, witness_two) = (lab.client("one")?, lab.client("two")?);
        let right = three.knock(Family::V4);
        for (position, host) in [(1, &three.edge), (2, &three.bastion)] {
            let mut wrong = right.clone();
            wrong.insert(position, Shot::Tcp(host.host().at(7_777)));
            three.client.knock(None, &wrong)?;
            three.witness(if position == 1 { &witness_one } else { &witness_two })?;
            three.all_closed(&three.client, None, Family::V4)?;
        }
        three.client.knock(None, &right)?;
        three.wait_open(&three.client, None, Family::V4)
    })
}

/// Drops the knocks behind the agents' ears, as a firewall does: the client's kernel gets no answer and sends again.
fn swallow_knocks(three: &Three<'_>) -> Result<()> {
    for agent in three.agents() {
        let host = agent.host();
        host.ok(&[
            "nft",
            "add table inet swallow; add chain inet swallow in { type filter hook input priority 0; }",
        ])?;
        host.ok(&["nft", "add rule inet swallow in tcp dport 7400-7420 counter drop"])?;
    }
    Ok(())
}

fn swallowed(host: &Host) -> Result<u64> {
    let listing = host.ok(&["nft", "list", "table", "inet", "swallow"])?;
    let words: Vec<_> = listing.split_whitespace().collect();
    let at = words.iter().position(|word| *word == "packets");
    Ok(at.and_then(|at| words.get(at + 1)?.parse().ok()).unwrap_or_default())
}

fn connect(shot: Shot, seconds: &str) -> Vec<String> {
    let to = shot.to();
    ["nc", "-n", "-z", "-w", seconds, &to.ip().to_string(), &to.port().to_string()]
        .map(str::to_owned)
        .to_vec()
}
