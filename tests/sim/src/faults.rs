//! What breaks: processes, machines, paths, etcd.

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use crate::{
    core::Event,
    network::{Node, Run},
    scenario::{BREAKING, Scenario},
    time::{Micros, SECOND},
    world::World,
};

/// The share of runs in which the store is lost.
const LOSES_STORE: f64 = 0.08;

/// A fault that begins and ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// etcd forgets its history at once.
    Compact,
    /// kill -9, or power off when `silent`; at the end the process starts again.
    Crash { node: Node, silent: bool },
    /// These paths carry nothing.
    Cut(Vec<(Node, Node)>),
    /// etcd has no majority.
    EtcdDown,
    /// SIGTERM; at the end the process starts again.
    Leave(usize),
    /// etcd is lost with all that it holds; controllers are started on an empty one. At the end a backup is restored.
    LoseStore,
    /// So many of a hundred answers of etcd get lost.
    Lose(u32),
    /// SIGSTOP; at the end SIGCONT.
    Pause(usize),
}

/// What breaks in a run, when, and until when.
pub(crate) fn draw(scenario: &Scenario, dice: &mut StdRng) -> Vec<(Micros, Fault, Micros)> {
    let faults = ordinary(scenario, dice);
    // Drawn apart, so that the other runs stay what they are.
    let mut dice = StdRng::seed_from_u64(scenario.seed ^ 0x10_57);
    if dice.random_bool(LOSES_STORE) { losing_the_store(scenario, &mut dice) } else { faults }
}

/// The store is lost, and some agents are restarted while it is away.
fn losing_the_store(scenario: &Scenario, dice: &mut StdRng) -> Vec<(Micros, Fault, Micros)> {
    let begins = dice.random_range(10 * SECOND..20 * SECOND);
    let ends = begins + dice.random_range(2 * SECOND..18 * SECOND);
    let mut faults = vec![(begins, Fault::LoseStore, ends)];
    for host in 0..scenario.hosts.len() {
        if dice.random_bool(0.4) {
            let at = dice.random_range(begins - 2 * SECOND..ends);
            let fault = Fault::Crash { node: Node::Agent(host), silent: false };
            faults.push((at, fault, at + dice.random_range(SECOND / 10..3 * SECOND)));
        }
    }
    faults
}

fn ordinary(scenario: &Scenario, dice: &mut StdRng) -> Vec<(Micros, Fault, Micros)> {
    let count = [0, 1, 1, 2, 3, 4, 6][dice.random_range(0..7)];
    let mut faults: Vec<(Micros, Fault, Micros)> = Vec::new();
    for _ in 0..count {
        let begins = dice.random_range(4 * SECOND..BREAKING - SECOND);
        let lasts = if dice.random_bool(0.3) {
            dice.random_range(SECOND / 10..2 * SECOND)
        } else {
            dice.random_range(2 * SECOND..20 * SECOND)
        };
        let ends = (begins + lasts).min(BREAKING);
        let fault = one(scenario, dice);
        let same = |other: &Fault| std::mem::discriminant(other) == std::mem::discriminant(&fault);
        let node = process(&fault);
        let overlaps = faults.iter().any(|(from, other, until)| {
            let clash = if node.is_some() { process(other) == node } else { same(other) && !is_cut(other) };
            clash && *from <= ends + SECOND && begins <= *until + SECOND
        });
        if !overlaps {
            faults.push((begins, fault, ends));
        }
    }
    faults
}

/// One thing is done to a process at a time.
fn process(fault: &Fault) -> Option<Node> {
    match fault {
        Fault::Crash { node, .. } => Some(*node),
        Fault::Leave(controller) | Fault::Pause(controller) => Some(Node::Controller(*controller)),
        _ => None,
    }
}

fn is_cut(fault: &Fault) -> bool {
    matches!(fault, Fault::Cut(_))
}

fn one(scenario: &Scenario, dice: &mut StdRng) -> Fault {
    let controller = dice.random_range(0..scenario.controllers.len());
    let agent = Node::Agent(dice.random_range(0..scenario.hosts.len()));
    match dice.random_range(0..100) {
        0..25 => Fault::Crash { node: Node::Controller(controller), silent: dice.random_bool(0.3) },
        25..33 => Fault::Crash { node: agent, silent: dice.random_bool(0.3) },
        33..45 => Fault::Leave(controller),
        45..55 => Fault::Pause(controller),
        55..63 => Fault::EtcdDown,
        63..67 => Fault::Compact,
        67..73 => Fault::Lose(dice.random_range(5..50)),
        73..80 => Fault::Cut(paths(Node::Controller(controller), Node::Etcd, dice)),
        80..90 => {
            let other = Node::Controller(dice.random_range(0..scenario.controllers.len()));
            Fault::Cut(paths(Node::Controller(controller), other, dice))
        }
        90..95 => Fault::Cut(paths(agent, Node::Controller(controller), dice)),
        _ => {
            let mut cut = paths(Node::Controller(controller), Node::Etcd, dice);
            for other in 0..scenario.controllers.len() {
                cut.extend(paths(Node::Controller(controller), Node::Controller(other), dice));
            }
            Fault::Cut(cut)
        }
    }
}

/// Both directions between two, or one of them.
fn paths(one: Node, other: Node, dice: &mut StdRng) -> Vec<(Node, Node)> {
    match dice.random_range(0..4) {
        _ if one == other => Vec::new(),
        0 => vec![(one, other)],
        1 => vec![(other, one)],
        _ => vec![(one, other), (other, one)],
    }
}

impl World {
    pub(crate) fn begin(&mut self, fault: &Fault) {
        self.core.say(|| format!("FAULT begins: {fault:?}"));
        self.core.note_fault(fault);
        match fault {
            Fault::Compact => {
                self.core.etcd.compact();
                for controller in 0..self.controllers.len() {
                    let watch = self.core.watch_of(controller);
                    self.core.at(self.core.now, Event::Watch { controller, watch });
                }
            }
            Fault::Crash { node, silent } => self.crash(*node, *silent),
            Fault::Cut(paths) => paths.iter().for_each(|(from, to)| self.core.net.cut(*from, *to)),
            Fault::EtcdDown => self.core.etcd.down = true,
            Fault::Leave(controller) => self.leave(*controller),
            Fault::Lose(percent) => self.core.etcd.losing = f64::from(*percent) / 100.0,
            Fault::LoseStore => self.lose_store(),
            Fault::Pause(controller) => {
                let node = Node::Controller(*controller);
                let (run, life) = self.core.state(node);
                if run == Run::Up {
                    self.core.set_state(node, Run::Paused, life);
                }
            }
        }
    }

    /// The machines of store and controllers are gone; a supervisor starts the controllers again.
    fn lose_store(&mut self) {
        for controller in 0..self.controllers.len() {
            let node = Node::Controller(controller);
            self.crash(node, false);
            let at = self.core.now + self.core.between(SECOND / 10, SECOND);
            self.core.at(at, Event::Start(node));
        }
        self.core.lose_store();
    }

    pub(crate) fn end(&mut self, fault: &Fault) {
        self.core.say(|| format!("FAULT ends: {fault:?}"));
        match fault {
            Fault::Compact => {}
            Fault::Crash { node, .. } => self.start(*node),
            Fault::Cut(paths) => paths.iter().for_each(|(from, to)| self.core.net.heal(*from, *to)),
            Fault::EtcdDown => self.core.elect(),
            Fault::Leave(controller) => self.restart_left(*controller),
            Fault::Lose(_) => self.core.etcd.losing = 0.0,
            Fault::LoseStore => self.core.restore(),
            Fault::Pause(controller) => self.resume(Node::Controller(*controller)),
        }
    }
}
