//! One run: machines, and whatever happens to them, in order.

use std::mem;

use fleetknock_controller::{
    grant,
    record::{DoorRecord, Key},
};

use crate::{
    agent::Host,
    controller::Process,
    core::{Core, Event, Input},
    etcd,
    network::{Node, Run},
    scenario::{LENGTH, Scenario},
    time::{SECOND, perfect},
};

/// See the [module](self).
pub(crate) struct World {
    pub(crate) core: Core,
    pub(crate) controllers: Vec<Option<Box<Process>>>,
    pub(crate) hosts: Vec<Host>,
    /// What came for a process while it was paused.
    waiting: Vec<Vec<Input>>,
}

impl World {
    pub(crate) fn new(scenario: Scenario, lines: bool) -> anyhow::Result<Self> {
        let (controllers, hosts) = (scenario.controllers.len(), scenario.hosts.len());
        let mut core = Core::new(scenario, lines);
        if let Some(identity) = etcd::identity(true) {
            core.plant(identity)?;
        }
        for door in core.scenario.doors.clone() {
            let key = Key::Door(door.name().clone());
            let record = DoorRecord::new(door, perfect(0));
            let change = grant::put(&key, &record)?;
            core.plant(change)?;
        }
        for number in 0..controllers {
            let at = core.between(0, SECOND);
            core.set_state(Node::Controller(number), Run::Down { silent: false }, 0);
            core.at(at, Event::Start(Node::Controller(number)));
        }
        let mut all = Vec::new();
        for number in 0..hosts {
            let at = core.between(0, 2 * SECOND);
            core.set_state(Node::Agent(number), Run::Down { silent: false }, 0);
            core.at(at, Event::Start(Node::Agent(number)));
            all.push(Host::new(number, &core));
        }
        for (begins, fault, ends) in core.scenario.faults.clone() {
            core.at(begins, Event::Begin(fault.clone()));
            core.at(ends, Event::End(fault));
        }
        for (at, packet) in core.scenario.packets.clone() {
            let at = at + core.between(200, 20_000);
            core.at(at, Event::Packet(packet));
        }
        for (at, operation) in core.scenario.operations.clone() {
            core.at(at, Event::Operate(operation));
        }
        Ok(Self {
            core,
            controllers: (0..controllers).map(|_| None).collect(),
            hosts: all,
            waiting: (0..controllers).map(|_| Vec::new()).collect(),
        })
    }

    pub(crate) fn run(&mut self) {
        while let Some(event) = self.core.next_event(LENGTH) {
            match event {
                Event::Answered { request, answer, give_up } => self.core.answered(request, answer, give_up),
                Event::Asked { request, give_up } => self.core.asked(request, give_up),
                Event::Judge(number) => self.judge(number),
                Event::Begin(fault) => self.begin(&fault),
                Event::End(fault) => self.end(&fault),
                Event::Give { node, life, input } => self.give(node, life, *input),
                Event::Leases => self.core.end_leases(),
                Event::Operate(operation) => {
                    let up = |number: &usize| self.core.state(Node::Controller(*number)).0 == Run::Up;
                    let up: Vec<_> = (0..self.controllers.len()).filter(up).collect();
                    if !up.is_empty() {
                        let place = self.core.between(0, up.len() as u64);
                        let node = Node::Controller(up[usize::try_from(place).unwrap_or(0)]);
                        let life = self.core.life(node);
                        self.give(node, life, Input::Operate(operation));
                    }
                }
                Event::Packet(packet) => {
                    let heard = self.hosts[packet.host].capture(&mut self.core, &packet);
                    self.core.captured(&packet, heard);
                }
                Event::Pump { stream, way } => {
                    if let Some((node, life, input)) = self.core.pump(stream, way) {
                        self.give(node, life, input);
                    }
                }
                Event::Start(node) => self.start(node),
                Event::Watch { controller, watch } => self.core.pump_watch(controller, watch),
            }
            if self.core.oracle.has_failed() {
                return;
            }
        }
        self.core.now = LENGTH;
        self.check_convergence();
    }

    /// Gives a process what came for it, in that life of it.
    fn give(&mut self, node: Node, life: u32, input: Input) {
        let (run, now) = self.core.state(node);
        if life != now {
            return;
        }
        match (node, run) {
            (_, Run::Down { .. }) | (Node::Etcd, _) => {}
            (Node::Controller(number), Run::Paused) => self.waiting[number].push(input),
            (Node::Controller(number), Run::Up) => {
                if let Some(process) = &mut self.controllers[number]
                    && process.take(&mut self.core, input)
                {
                    self.crash(node, false);
                }
            }
            (Node::Agent(number), _) => self.hosts[number].take(&mut self.core, input),
        }
    }

    pub(crate) fn start(&mut self, node: Node) {
        let (run, life) = self.core.state(node);
        if !matches!(run, Run::Down { .. }) {
            return;
        }
        let life = life + 1;
        self.core.set_state(node, Run::Up, life);
        self.core.say(|| format!("{node:?} starts, life {life}"));
        match node {
            Node::Agent(number) => self.hosts[number].start(&mut self.core),
            Node::Controller(number) => {
                self.waiting[number].clear();
                self.controllers[number] = Some(Box::new(Process::new(number, &mut self.core)));
                self.give(node, life, Input::Start);
            }
            Node::Etcd => {}
        }
    }

    pub(crate) fn crash(&mut self, node: Node, silent: bool) {
        let (_, life) = self.core.state(node);
        self.core.kill_streams(node, silent);
        self.core.set_state(node, Run::Down { silent }, life);
        self.core.say(|| format!("{node:?} is gone"));
        match node {
            Node::Agent(number) => self.hosts[number].crash(),
            Node::Controller(number) => {
                self.controllers[number] = None;
                self.core.oracle.serving.remove(&number);
            }
            Node::Etcd => {}
        }
    }

    pub(crate) fn leave(&mut self, controller: usize) {
        let node = Node::Controller(controller);
        let life = self.core.life(node);
        self.give(node, life, Input::Leave);
    }

    /// Whoever supervises it waits for its end, and then starts it again.
    pub(crate) fn restart_left(&mut self, controller: usize) {
        let node = Node::Controller(controller);
        if self.core.state(node).0 == Run::Up {
            self.crash(node, false);
        }
        self.start(node);
    }

    pub(crate) fn resume(&mut self, node: Node) {
        let (run, life) = self.core.state(node);
        let Node::Controller(number) = node else { return };
        if run == Run::Paused {
            self.core.set_state(node, Run::Up, life);
            for input in mem::take(&mut self.waiting[number]) {
                self.give(node, life, input);
            }
        }
    }
}
