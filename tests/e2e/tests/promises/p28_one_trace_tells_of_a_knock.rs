//! Promise 28: one trace tells of a knock, from its capture on three hosts over three controllers to the kernel of each host
//! that it opens; one tells of an attempt that failed; noise makes none, and no span tells how to knock.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use fleetknock_e2e::{
    SOON,
    doors::{self, ACROSS, WRONG},
};
use fleetknock_lab::{
    Fleet, Host, Lab, Pki, Shot,
    collector::{Collector, Sent},
    etcd::Etcd,
    programs, wait_until, within,
};
use serde_json::Value;

const NAMES: [&str; 3] = ["edge-1", "db-1", "bastion-1"];

#[test]
fn over_three_hosts_and_three_controllers() -> Result<()> {
    Lab::scenario("traced", |lab| {
        let collector = Collector::start(&lab.host("collector")?)?;
        let traced = Traced::start(lab, collector.url(), &[])?;
        let Traced { fleet, hosts, client, .. } = &traced;

        // Noise, and an attempt that fails.
        let noisy = lab.client("noisy")?;
        for round in 0..10 {
            let ports = (0..100).map(|nth| Shot::Udp(hosts[round % 3].at(40_000 + nth)));
            noisy.knock(None, &ports.collect::<Vec<_>>())?;
        }
        let clumsy = lab.client("clumsy")?;
        let knock = traced.knock();
        clumsy.knock(None, &[knock[0], knock[1], Shot::Tcp(hosts[1].at(WRONG))])?;
        let is_of =
            |source: &Host, span: &Sent| span.attributes.contains(&format!("client.address={}", source.v4()));
        let (failed, _) = within("a trace of the attempt that failed", SOON, || {
            let spans = collector.spans();
            let root = spans.iter().find(|span| span.name == "knock" && is_of(&clumsy, span)).cloned();
            Ok(root.filter(|root| {
                spans.iter().filter(|span| span.trace == root.trace && span.name == "capture").count() >= 3
            }))
        })?;
        ensure!(failed.failed, "{failed:?}");
        ensure!(failed.attributes.contains(&"fleetknock.step=2".to_owned()), "{failed:?}");

        client.knock(None, &knock)?;
        fleet.opening_of(&client.v4().to_string(), SOON)?;
        let (whole, _) = within("one whole trace of the knock", SOON, || {
            let spans = collector.spans();
            let roots: Vec<_> =
                spans.iter().filter(|span| span.name == "knock" && is_of(client, span)).cloned().collect();
            let [root] = &roots[..] else {
                ensure!(roots.len() < 2, "several traces of one knock: {roots:?}");
                return Ok(None);
            };
            let of_it: Vec<_> = spans.into_iter().filter(|span| span.trace == root.trace).collect();
            let enough = of_it.iter().filter(|span| span.name == "apply").count() == 3
                && of_it.iter().filter(|span| span.name == "report").count() == 3
                && of_it.iter().any(|span| span.name == "store");
            Ok(enough.then_some(of_it))
        })?;
        let hosts_of = |name: &str, service: &str| -> BTreeSet<&str> {
            let of_name = whole.iter().filter(|span| span.name == name && span.service == service);
            of_name.map(|span| span.host.as_str()).collect()
        };
        let (agent, controller) = ("fleetknock-agent", "fleetknock-controller");
        let all = BTreeSet::from(NAMES);
        for name in ["capture", "report", "apply"] {
            ensure!(hosts_of(name, agent) == all, "{name} is not told of by every agent: {whole:#?}");
        }
        for (name, controllers) in [("knock", 1), ("match", 1), ("store", 1), ("forward", 2), ("push", 3)] {
            ensure!(hosts_of(name, controller).len() == controllers, "{name}: {whole:#?}");
        }
        for span in &whole {
            let resolves = whole.iter().any(|other| other.span == span.parent);
            ensure!(resolves != (span.name == "knock"), "{span:?} hangs in the air: {whole:#?}");
            ensure!(span.times.0 <= span.times.1 && !span.failed, "{span:?}");
        }
        let id = &whole[0].trace;
        let logs = fleet.controllers().iter().map(|controller| Ok(controller.process()?.log()));
        let logs = logs.collect::<Result<Vec<_>>>()?.concat();
        ensure!(logs.lines().any(|line| line.contains("opened its door") && line.contains(id)), "{logs}");

        // Noise has had as much time as the knock, and made nothing; nor does any span tell a port.
        let spans = collector.spans();
        let traces: BTreeSet<_> = spans.iter().map(|span| &span.trace).collect();
        ensure!(traces.len() == 2, "{} traces: {spans:#?}", traces.len());
        let said = format!("{spans:?}");
        for port in ACROSS.iter().chain(&[WRONG]) {
            ensure!(
                !said.contains(&format!("={port}")) && !said.contains(&format!("/{port}")),
                "{port}: {said}"
            );
        }

        // Everybody's metrics go the same way.
        for (span, service, metric) in
            [("push", controller, "sources_in_flight"), ("apply", agent, "knocks_captured")]
        {
            let hosts = hosts_of(span, service);
            wait_until("the collector to have everybody's metrics", SOON, || {
                let has = |host: &&str| collector.metrics_of(host).iter().any(|name| name.contains(metric));
                Ok(hosts.iter().all(has))
            })?;
        }

        // An operator's opening is a trace as well.
        fleet.cli_ok(&["open", "traced", "--source", "198.51.100.7"])?;
        wait_until("a trace of the operator's opening", SOON, || {
            let spans = collector.spans();
            let root = spans.iter().find(|span| span.name == "open").map(|root| root.trace.clone());
            let applied = |span: &&Sent| span.name == "apply" && Some(&span.trace) == root.as_ref();
            Ok(spans.iter().filter(applied).count() == 3)
        })?;
        Ok(())
    })
}

#[test]
fn to_a_collector_of_others() -> Result<()> {
    Lab::scenario("rotel", |lab| {
        let host = lab.host("collector")?;
        let at = |port: u16| host.at(port).to_string();
        let program = programs::rotel()?.to_string_lossy().into_owned();
        let mut command = vec![program, "start".to_owned(), "--otlp-grpc-endpoint".to_owned(), at(4317)];
        command.extend(["--otlp-http-endpoint".to_owned(), at(4318), "--exporter".to_owned()]);
        command.extend(["blackhole", "--debug-log", "traces"].map(str::to_owned));
        command.extend(["--debug-log-verbosity", "detailed"].map(str::to_owned));
        let rotel = host.spawn("rotel", &command)?;
        let traced = Traced::start(lab, &format!("http://{}", at(4317)), &["--log-format", "json"])?;
        traced.client.knock(None, &traced.knock())?;
        let (id, _) = within("a controller to name the trace in its log", SOON, || {
            let mut logs = String::new();
            for controller in traced.fleet.controllers() {
                logs.push_str(&controller.process()?.log());
            }
            let line = logs.lines().find(|line| line.contains("opened its door"));
            // The last line may be half written.
            let line = line.and_then(|line| serde_json::from_str::<Value>(line).ok());
            Ok(line.and_then(|line| line.pointer("/span/trace_id")?.as_str().map(str::to_owned)))
        })?;
        wait_until("the collector to have the trace of every host", SOON, || {
            ensure!(rotel.is_running(), "{}", rotel.log());
            let log = rotel.log();
            Ok(log.contains(&id) && log.contains("apply") && NAMES.iter().all(|name| log.contains(name)))
        })?;
        Ok(())
    })
}

/// Three controllers, each with the agent of one of three hosts.
struct Traced<'lab> {
    fleet: Fleet<'lab>,
    hosts: Vec<Host>,
    client: Host,
    _etcd: Etcd,
}

impl<'lab> Traced<'lab> {
    fn start(lab: &'lab Lab, otlp: &str, more: &[&str]) -> Result<Self> {
        let pki = Pki::create(lab, "fleet", "blue")?;
        let etcd = Etcd::start(&[lab.host("etcd-1")?], lab.directory())?;
        let controls = ["control-1", "control-2", "control-3"].map(|name| lab.host(name));
        let controls = controls.into_iter().collect::<Result<Vec<_>>>()?;
        let flags: Vec<_> = ["--otlp", otlp].iter().chain(more).map(ToString::to_string).collect();
        let fleet = Fleet::start_several_trusted(lab, &pki, &controls, &etcd.store(), &flags)?;
        let hosts = NAMES.map(|name| lab.host(name)).into_iter().collect::<Result<Vec<_>>>()?;
        for (host, controller) in hosts.iter().zip(fleet.controllers()) {
            host.serve(&[22], &[])?;
            // All that an agent can give up is given up: the collector is in reach all the same.
            let flags = ["--firewall", "nftables", "--otlp", otlp];
            fleet.agent_of(host, &[], &flags, &[controller])?;
        }
        fleet.wait_connected(3)?;
        let client = lab.client("client")?;
        let opens = "hosts: {names: [edge-1, db-1, bastion-1]}, ports: [tcp/22], for: 60s";
        fleet.apply(&doors::across("traced", "60s", opens))?;
        fleet.wait_guarded(&client, &hosts.iter().map(|host| host.at(22)).collect::<Vec<_>>())?;
        Ok(Self { fleet, hosts, client, _etcd: etcd })
    }

    fn knock(&self) -> [Shot; 3] {
        doors::knock_across([0, 1, 2].map(|nth| &self.hosts[nth]))
    }
}
