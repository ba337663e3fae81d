//! A whole fleet in one thread: controllers, agents, an etcd, users and operators, with a virtual clock and network.
//!
//! One number decides everything that happens in a run: how many machines there are, how their clocks go, what breaks
//! when, who knocks where, how long each packet takes. The same number gives the same run, event by event, so a run that
//! broke a promise is looked at again with `fleetknock-sim --seed N --trace`.
//!
//! The simulation drives the parts of the programs that decide: the fleet's copy, grants, router, tenure, clocks,
//! sessions and matcher of the controller; window, picture, round and wire of the agent; the judging and leases of the
//! store. What it has of its own is what the programs do with tasks, sockets and clocks, and it follows the programs'
//! shells closely: a change there needs one in `controller/` or `agent/` here.
//!
//! Not simulated: bounds of queues (the programs' tests fill them), TLS, the control API beyond its decisions, packet
//! capture and the kernel's sets beyond "an element has a deadline".

mod agent;
mod controller;
mod core;
mod etcd;
mod faults;
mod judge;
mod network;
mod oracle;
mod scenario;
mod time;
mod users;
mod world;

use anyhow::Context as _;

/// A deliberate fault in what a controller does, to show that a broken promise is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Sabotage {
    /// Answers a knock that has come to its second step.
    AnswerHalf,
    /// Answers a knock however late.
    AnswerLate,
    /// Answers a knock that has been answered.
    AnswerTwice,
    /// Tells knocks apart by time alone.
    ForgetPackets,
    /// Does not tell the agents every change.
    ForgetToPush,
    /// Gives a knock up at once when the store or the lease is away.
    GiveUp,
    /// Keeps its agents without a lease.
    KeepAgents,
    /// Does not ask for the agents' windows when sources move.
    NeverResend,
    /// Tells agents of an earlier store what a new one holds.
    TakeAnyPicture,
    /// Tells agents that openings last longer than they do.
    TellLonger,
    /// Decides without expecting that it still is a member.
    Unfenced,
}

/// What to run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Decides everything.
    pub seed: u64,
    /// What a controller does wrong.
    pub sabotage: Option<Sabotage>,
    /// Whether to write down what happens.
    pub trace: bool,
}

/// What a run was like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Complete knocks.
    pub knocks: u32,
    /// Of these, those that had to open within their bound.
    pub due: u32,
    /// Those that opened.
    pub opened: u32,
    /// The longest time from a last packet to the commit of its opening, microseconds.
    pub slowest_us: u64,
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Of every event: two runs of one seed have the same.
    pub hash: u64,
    /// How many events there were.
    pub events: u64,
    /// The first promise that was broken, and when.
    pub failure: Option<String>,
    /// What was counted.
    pub stats: Stats,
    /// What happened, when that was asked for.
    pub lines: Vec<String>,
}

/// Runs one seed to its end, or to the first broken promise.
///
/// # Errors
/// When the scenario cannot be made, which is a mistake in the simulation.
pub fn run(options: Options) -> anyhow::Result<Outcome> {
    let scenario = scenario::Scenario::draw(options.seed).context("cannot draw the scenario")?;
    let mut world = world::World::new(scenario, options.trace)?;
    world.core.oracle.sabotage = options.sabotage;
    let scenario = &world.core.scenario;
    let said = format!(
        "controllers {:?}, hosts {:?}, lease {:?}, delay {} to {} us, doors {:?}",
        scenario.controllers, scenario.hosts, scenario.lease, scenario.delay, scenario.spike, scenario.doors
    );
    world.core.say(|| said);
    world.run();
    let core = world.core;
    Ok(Outcome {
        hash: core.trace.hash,
        events: core.events,
        failure: core.oracle.failure,
        stats: core.oracle.stats,
        lines: core.trace.lines.unwrap_or_default(),
    })
}
