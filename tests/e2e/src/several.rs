//! Several controllers that share an etcd of three members, around the same three hosts.

use std::{
    cell::Cell,
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use fleetknock_lab::{Controller, Cut, Fleet, Host, Lab, etcd::Etcd, fleet, wait_until};

use crate::{Family, Steps, Three};

/// How long a complete knock may take to open its door while something is broken. The door's sequence takes at most this
/// long as well.
pub const IN_TIME: Duration = Duration::from_secs(20);
/// How long the fleet may take to be whole again after something broken is back.
const WHOLE_AGAIN: Duration = Duration::from_secs(60);
/// Sources that are tried until one has the wanted owner: among three controllers, fifteen in a row miss it with a
/// probability of 1 in 400.
const TRIES: usize = 30;

/// At which of the controllers the agents are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// Each knows all controllers and is wherever it likes.
    Anywhere,
    /// Each knows all controllers, and is at one of its own at first.
    Spread,
    /// Each knows only one, a controller of its own.
    Pinned,
    /// All know only the first.
    First,
}

impl Placement {
    /// The controllers that this agent is told of.
    pub(crate) fn known(self, agent: usize, all: &[Controller]) -> Vec<&Controller> {
        match self {
            Self::Anywhere | Self::Spread => all.iter().collect(),
            Self::Pinned => vec![&all[agent]],
            Self::First => vec![&all[0]],
        }
    }

    /// Keeps an agent away from the controllers at which it shall not be at first.
    pub(crate) fn hold_back(self, agent: usize, host: &Host, all: &[Controller]) -> Result<Option<Cut>> {
        if self != Self::Spread {
            return Ok(None);
        }
        let others = all.iter().enumerate().filter(|(number, _)| *number != agent);
        Cut::refused(host, others.map(|(_, controller)| controller.host())).map(Some)
    }
}

/// Three controllers, an etcd of three members, three hosts and a door.
#[derive(Debug)]
pub struct Several<'lab> {
    lab: &'lab Lab,
    /// What the controllers share.
    pub etcd: Etcd,
    /// The hosts, the door and the controllers.
    pub three: Three<'lab>,
    /// Clients made so far.
    clients: Cell<usize>,
}

impl<'lab> Several<'lab> {
    /// Everything running, the agents connected where they shall be, the door guarded.
    ///
    /// # Errors
    /// When something does not get ready.
    pub fn guarded(lab: &'lab Lab, steps: Steps, placement: Placement, open_seconds: u32) -> Result<Self> {
        let hosts =
            |names: [&str; 3]| names.into_iter().map(|name| lab.host(name)).collect::<Result<Vec<_>>>();
        let etcd = Etcd::start(&hosts(["etcd-1", "etcd-2", "etcd-3"])?, lab.directory())?;
        let control = hosts(["control-1", "control-2", "control-3"])?;
        let fleet = Fleet::start_several(lab, &control, &etcd.store())?;
        let three = Three::placed(lab, fleet, steps, placement)?;
        three.apply(open_seconds)?;
        let several = Self { lab, etcd, three, clients: Cell::default() };
        several.wait_whole()?;
        Ok(several)
    }

    /// All controllers.
    pub fn controllers(&self) -> &[Controller] {
        self.three.fleet.controllers()
    }

    /// Plugs in a client that has not knocked yet.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn client(&self) -> Result<Host> {
        self.clients.set(self.clients.get() + 1);
        self.lab.client(&format!("user-{}", self.clients.get()))
    }

    /// A client that has knocked the first step, and the controller that follows it, which is one that was asked for.
    ///
    /// # Errors
    /// When no client's owner is.
    pub fn begun(&self, wanted: impl Fn(&Controller) -> bool) -> Result<(Host, &Controller)> {
        for _ in 0..TRIES {
            let client = self.client()?;
            client.knock(None, &self.three.knock(Family::V4)[..1])?;
            let owner = self.three.fleet.owner_of(client.v4())?;
            if wanted(owner) {
                return Ok((client, owner));
            }
        }
        bail!("no source of {TRIES} has the wanted owner")
    }

    /// Waits until the door is open for this client, with exactly one opening, and nowhere else.
    ///
    /// # Errors
    /// When it is not in time.
    pub fn opens_once(&self, client: &Host) -> Result<()> {
        self.three.wait_open_within(IN_TIME, client, None, Family::V4)?;
        self.has_opened(client.v4(), 1)?;
        self.three.opens_nowhere_else(client, Family::V4)
    }

    /// Checks how many openings this source has or had.
    ///
    /// # Errors
    /// When it is another number.
    pub fn has_opened(&self, source: IpAddr, times: usize) -> Result<()> {
        let ever = self.three.openings_ever(Some(source))?;
        ensure!(ever == times, "{source} has had {ever} openings, not {times}");
        Ok(())
    }

    /// Starts what was killed or stopped, and waits until all are whole again.
    ///
    /// # Errors
    /// When they are not in time.
    pub fn mend(&self) -> Result<()> {
        for controller in self.controllers() {
            if controller.process().is_err() {
                controller.spawn()?;
            }
        }
        self.wait_whole()
    }

    /// Waits until every controller serves and sees the others, and the agents are connected.
    ///
    /// # Errors
    /// When they are not in time.
    pub fn wait_whole(&self) -> Result<()> {
        for controller in self.controllers() {
            self.wait_state(controller, "serving")?;
            let all = self.controllers().len() - 1;
            wait_until(&format!("{} to see its peers", controller.name()), WHOLE_AGAIN, || {
                let own = own(controller)?;
                let peers = fleet::field(&own, "peers").and_then(|peers| peers.as_array().cloned());
                let up = |peer: &serde_json::Value| fleet::text(peer, "state") == Some("up");
                Ok(peers.is_some_and(|peers| peers.iter().filter(|peer| up(peer)).count() == all))
            })?;
        }
        self.three.fleet.wait_connected(3)?;
        Ok(())
    }

    /// Waits until a controller says that it is in this state, such as `serving`.
    ///
    /// # Errors
    /// When it is not in time.
    pub fn wait_state(&self, controller: &Controller, state: &str) -> Result<Duration> {
        let what = format!("{} to be {state}", controller.name());
        wait_until(&what, WHOLE_AGAIN, || {
            Ok(own(controller).is_ok_and(|own| fleet::text(&own, "state") == Some(state)))
        })
    }

    /// Sees for so long that nothing opens for this client.
    ///
    /// # Errors
    /// When something does.
    pub fn stays_closed(&self, client: &Host, time: Duration) -> Result<()> {
        let start = Instant::now();
        while start.elapsed() < time {
            self.three.all_closed(client, None, Family::V4)?;
        }
        Ok(())
    }
}

/// What a controller says of itself.
fn own(controller: &Controller) -> Result<serde_json::Value> {
    let mut all = controller.operator().list("controllers", &[])?;
    all.retain(|found| fleet::text(found, "name") == Some(controller.name()));
    all.pop().with_context(|| format!("{} does not list itself", controller.name()))
}
