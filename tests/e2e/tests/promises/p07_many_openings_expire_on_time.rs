//! Promise 7: 300 openings at once on one host all expire on time. Knocking ten times leaves one opening, extended.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use fleetknock_e2e::{Family, MIXED, SOON, SSH, Three};
use fleetknock_lab::{Lab, fleet, knock::shoot, wait_until};

const OPEN_FOR: Duration = Duration::from_secs(20);
/// What the kernel's timers, the store's rounding and the looking itself add.
const SLACK: Duration = Duration::from_secs(2);

#[test]
fn three_hundred_openings_expire_on_time() -> Result<()> {
    Lab::scenario("many", |lab| {
        let three = Three::guarded(lab, MIXED, 20)?;
        let crowd = lab.client("crowd")?;
        let sources = sources();
        crowd.add_addresses(sources.iter().copied())?;
        let all: BTreeSet<_> = sources.iter().copied().collect();

        let start = Instant::now();
        for step in 0..3 {
            crowd.inside(|| -> Result<()> {
                for source in &sources {
                    let family = if source.is_ipv4() { Family::V4 } else { Family::V6 };
                    shoot(Some(*source), three.knock(family)[step])?;
                }
                Ok(())
            })??;
        }
        let knocked = start.elapsed();
        ensure!(
            knocked < Duration::from_secs(5),
            "knocking took {knocked:?}: this machine is too slow for the test"
        );
        let targets = [three.db.host(), three.bastion.host()]
            .map(|host| move |source: IpAddr| SocketAddr::new(host.address_like(source), SSH));
        for target in &targets {
            wait_until("all 300 to be let in", SOON, || Ok(crowd.reached_from(&sources, target)? == all))?;
        }
        let opened = start.elapsed();
        ensure!(three.fleet.list("openings")?.len() == 300, "there are not 300 openings");
        let early = OPEN_FOR.saturating_sub(SLACK);
        ensure!(opened < early, "opening took {opened:?}: this machine is too slow for the test");
        for target in &targets {
            // None closes before its time ...
            loop {
                let looked_at = start.elapsed();
                let reached = crowd.reached_from(&sources, target)?;
                if looked_at >= early {
                    break;
                }
                let missing: Vec<_> = all.difference(&reached).collect();
                ensure!(missing.is_empty(), "{missing:?} closed after {looked_at:?}");
            }
        }
        for target in &targets {
            // ... and all are closed at it.
            let deadline = (knocked + OPEN_FOR + SLACK).saturating_sub(start.elapsed());
            wait_until("all 300 to be closed", deadline, || {
                Ok(crowd.reached_from(&sources, target)?.is_empty())
            })?;
        }
        Ok(())
    })
}

#[test]
fn knocking_ten_times_leaves_one_opening_extended() -> Result<()> {
    Lab::scenario("again", |lab| {
        let three = Three::guarded(lab, MIXED, 30)?;
        let own = three.client.v4().to_string();
        // RFC 3339 in UTC: later times are greater texts.
        let mut expires = String::new();
        for count in 1..=10 {
            three.client.knock(None, &three.knock(Family::V4))?;
            wait_until(&format!("knock {count} to count"), SOON, || {
                Ok(fleet::number(&three.fleet.opening_of(&own, SOON)?, "generation") == Some(count))
            })?;
            let opening = three.fleet.opening_of(&own, SOON)?;
            let now = fleet::text(&opening, "expires").context("no expiry")?;
            ensure!(now > expires.as_str(), "knock {count} did not extend the opening");
            expires = now.to_owned();
        }
        three.wait_open(&three.client, None, Family::V4)?;
        ensure!(three.openings_ever(None)? == 1, "there is more than one opening");
        Ok(())
    })
}

/// 200 IPv4 and 100 IPv6 sources, ten in each /24 and /56.
fn sources() -> Vec<IpAddr> {
    let v4 = (0..200_u8).map(|n| IpAddr::from(Ipv4Addr::new(10, 77, 100 + n / 10, 20 + n % 10)));
    let v6 = (0..100_u16).map(|n| {
        IpAddr::from(Ipv6Addr::new(0xfd77, 0, 0, 0x6400 + (n / 10) * 0x100, 0, 0, 0, 0x20 + n % 10))
    });
    v4.chain(v6).collect()
}
