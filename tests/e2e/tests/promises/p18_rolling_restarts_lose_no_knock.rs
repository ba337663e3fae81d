//! Promise 18: all controllers are restarted one after the other while 50 sources knock all the time, and not one knock
//! fails.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use fleetknock_e2e::{Family, MIXED, Placement, SSH, Several, at};
use fleetknock_lab::{
    Lab, Shot,
    knock::shoot,
    probe::{PATIENCE, connect},
    wait_until,
};

/// Sources that knock.
const SOURCES: u8 = 50;
/// How long the door is open: each source waits until it is closed again before it knocks again.
const OPEN_FOR: u32 = 3;
/// How long a knock may take to open the door on a busy machine.
const DEADLINE: Duration = Duration::from_secs(10);

#[test]
fn during_continuous_knocking_from_fifty_sources() -> Result<()> {
    Lab::scenario("rolling", |lab| {
        let several = Several::guarded(lab, MIXED, Placement::Spread, OPEN_FOR)?;
        let three = &several.three;
        let crowd = lab.client("crowd")?;
        let sources: Vec<IpAddr> =
            (0..SOURCES).map(|n| Ipv4Addr::new(10, 77, 200 + n / 10, 20 + n % 10).into()).collect();
        crowd.add_addresses(sources.iter().copied())?;
        let knock = three.knock(Family::V4);
        let opened = [three.db.host(), three.bastion.host()].map(|host| at(host, SSH, Family::V4));

        let (stop, whole) = (AtomicBool::new(false), AtomicUsize::new(0));
        let (crowd, stop, whole, knock) = (&crowd, &stop, &whole, &knock[..]);
        thread::scope(|scope| {
            let users: Vec<_> = sources
                .iter()
                .enumerate()
                .map(|(number, source)| {
                    // Out of step with each other, so that at each moment some are at each step.
                    let pause = Duration::from_millis(20 + 17 * (number as u64 % 23));
                    let user = move || -> Result<()> {
                        thread::sleep(Duration::from_millis(97 * number as u64));
                        while !stop.load(Ordering::Relaxed) {
                            knock_once(*source, knock, &opened, pause)
                                .with_context(|| format!("{source}, after {whole:?} knocks of all"))?;
                            whole.fetch_add(1, Ordering::Relaxed);
                        }
                        Ok(())
                    };
                    scope.spawn(move || crowd.inside(user)?)
                })
                .collect();
            let restarted = restart_all(&several, || {
                ensure!(!users.iter().any(|user| user.is_finished()), "a user has given up");
                Ok(whole.load(Ordering::Relaxed))
            });
            stop.store(true, Ordering::Relaxed);
            let mut failed = Vec::new();
            for user in users {
                match user.join() {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => failed.push(format!("{error:#}")),
                    Err(_) => failed.push("a user panicked".to_owned()),
                }
            }
            ensure!(failed.is_empty(), "{} knocks failed: {failed:#?}", failed.len());
            restarted
        })
    })
}

/// Restarts the controllers one after the other, each while knocks succeed before and after.
fn restart_all(several: &Several<'_>, whole: impl Fn() -> Result<usize>) -> Result<()> {
    let each_again = |what: &str| -> Result<()> {
        let before = whole()?;
        let target = before + usize::from(SOURCES);
        wait_until(&format!("{SOURCES} knocks {what}"), Duration::from_secs(60), || Ok(whole()? >= target))?;
        Ok(())
    };
    each_again("before the first restart")?;
    for controller in several.controllers() {
        controller.tell_to_stop()?;
        controller.wait_stopped()?;
        controller.spawn()?;
        controller.wait_ready()?;
        each_again(&format!("after {} was restarted", controller.name()))?;
    }
    several.wait_whole()
}

/// Knocks, sees the door open on both hosts, and sees it closed again.
fn knock_once(
    source: IpAddr,
    knock: &[Shot],
    opened: &[std::net::SocketAddr],
    pause: Duration,
) -> Result<()> {
    for (number, shot) in knock.iter().enumerate() {
        if number > 0 {
            thread::sleep(pause);
        }
        shoot(Some(source), *shot)?;
    }
    let mut seen = vec![false; opened.len()];
    let start = Instant::now();
    while seen.contains(&false) {
        if start.elapsed() > DEADLINE {
            bail!("a knock opened {seen:?} of {opened:?} within {DEADLINE:?}");
        }
        for (seen, to) in seen.iter_mut().zip(opened) {
            *seen = *seen || connect(Some(source), *to, PATIENCE).is_ok();
        }
    }
    for to in opened {
        wait_until(&format!("{to} to close"), DEADLINE, || {
            let open = connect(Some(source), *to, PATIENCE).is_ok();
            thread::sleep(PATIENCE);
            Ok(!open)
        })?;
    }
    Ok(())
}
