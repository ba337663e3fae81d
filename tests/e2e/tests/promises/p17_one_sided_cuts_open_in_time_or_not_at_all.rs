//! Promise 17: cuts between controllers that not everybody sees. A knock goes round the cut, or opens nothing; it never
//! opens late; and the operator can see why.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fleetknock_e2e::{Family, MIXED, Placement, Several};
use fleetknock_lab::{Controller, Cut, Lab, fleet, wait_until};

/// After this long a knock that was complete then must no longer open anything.
const TOO_LATE: Duration = Duration::from_secs(16);

#[test]
fn of_one_peer_and_of_all() -> Result<()> {
    Lab::scenario("one-sided", |lab| {
        let several = Several::guarded(lab, MIXED, Placement::First, 120)?;
        let knock = several.three.knock(Family::V4);
        let [a, b, c] = several.controllers() else { anyhow::bail!("not three controllers") };
        // Users whose owner is B, while the agents are all at A.
        let (under_way, _) = several.begun(|owner| owner.name() == b.name())?;
        let (anew, _) = several.begun(|owner| owner.name() == b.name())?;

        let cut = Cut::one_way(a.host(), b.host())?;
        under_way.knock(None, &knock[1..])?;
        several.opens_once(&under_way).context("the knock that was under way")?;
        sees_cut(a, b)?;
        sees_cut(b, a)?;
        anew.knock(None, &knock)?;
        several.opens_once(&anew).context("a knock round the cut")?;

        let (alone, _) = several.begun(|_| true)?;
        let cut = cut.and(Cut::between(a.host(), c.host())?);
        alone.knock(None, &knock[1..])?;
        several.opens_once(&alone).context("the knock under way at a controller that became alone")?;
        sees_cut(a, c)?;
        let client = several.client()?;
        client.knock(None, &knock)?;
        several.opens_once(&client).context("a knock at a controller that is alone")?;

        cut.heal()?;
        several.wait_whole()?;
        let ever = several.three.openings_ever(None)?;
        ensure!(ever == 4, "{ever} openings after four knocks");
        Ok(())
    })
}

#[test]
fn knocks_that_cannot_meet_never_open_late() -> Result<()> {
    Lab::scenario("apart", |lab| {
        let several = Several::guarded(lab, MIXED, Placement::Pinned, 120)?;
        let knock = several.three.knock(Family::V4);
        let [a, b, c] = several.controllers() else { anyhow::bail!("not three controllers") };
        let cut = Cut::off(a.host(), [b.host(), c.host()])?;
        let client = several.client()?;
        client.knock(None, &knock)?;
        let knocked = Instant::now();
        sees_cut(a, b)?;
        sees_cut(a, c)?;
        several.stays_closed(&client, TOO_LATE.saturating_sub(knocked.elapsed()))?;

        cut.heal()?;
        several.wait_whole()?;
        let other = several.client()?;
        other.knock(None, &knock)?;
        several.opens_once(&other)?;
        several.three.all_closed(&client, None, Family::V4)?;
        several.has_opened(client.v4(), 0)
    })
}

/// The operator who asks this controller is told that the other one is cut off, and why.
fn sees_cut(controller: &Controller, other: &Controller) -> Result<()> {
    let what = format!("{} to say that {} is cut off", controller.name(), other.name());
    wait_until(&what, Duration::from_secs(20), || {
        let all = controller.operator().list("controllers", &[])?;
        let named = |name: &str| all.iter().find(|found| fleet::text(found, "name") == Some(name));
        let (Some(own), Some(theirs)) = (named(controller.name()), named(other.name())) else {
            return Ok(false);
        };
        let peers =
            fleet::field(own, "peers").and_then(|peers| peers.as_array()).cloned().unwrap_or_default();
        let peer = peers.iter().find(|peer| fleet::text(peer, "controller") == Some(other.name()));
        let cut = peer.is_some_and(|peer| {
            fleet::text(peer, "state") == Some("cut")
                && fleet::text(peer, "reason").is_some_and(|reason| !reason.is_empty())
        });
        Ok(cut && fleet::text(theirs, "state") == Some("unreachable"))
    })?;
    let text = controller.operator().cli_ok(&["describe", "controller", controller.name()])?;
    ensure!(text.contains(other.name()) && text.contains("cut"), "{text}");
    Ok(())
}
