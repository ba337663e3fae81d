//! `deploy/compose.yaml` is what its README says: a fleet that opens a door across containers, that loses a controller
//! and members of etcd without anybody noticing, and that leaves nothing behind. Commands are those that people type, and
//! our own images are built from their Dockerfiles; those of others are stand-ins ([`images`]).
#![allow(
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test that cannot go on has failed"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
    time::Instant,
};

use anyhow::{Result, bail, ensure};
use fleetknock_deploy::{run::run, tree};
use serde_json::Value;

#[path = "compose/configuration.rs"]
mod configuration;
#[path = "compose/fleet.rs"]
mod fleet;
#[path = "compose/images.rs"]
mod images;

use fleet::{Fleet, KNOCK, eventually};

const SSH: &str = "bastion-1/22";

/// One test, because each of its promises begins where the one before left the fleet.
#[test]
fn a_fleet_of_containers_opens_its_door_whatever_is_killed() {
    let begun = Instant::now();
    let say = |what: &str| println!("[{:3} s] {what}", begun.elapsed().as_secs());
    let fleet = Fleet::prepare().unwrap();
    say("an engine runs, and the images are there");
    let outcome = promises(&fleet, &say);
    if outcome.is_err() {
        println!("{}", fleet.compose(&["ps"]).unwrap_or_default());
        println!("{}", fleet.compose(&["logs", "--no-color", "--tail", "20"]).unwrap_or_default());
    }
    outcome.unwrap();
}

fn promises(fleet: &Fleet, say: &dyn Fn(&str)) -> Result<()> {
    fleet.compose(&["up", "--detach"])?;
    fleet.wait_until_well()?;
    // Its first scrapes are over when it is asked.
    fleet.compose(&["up", "--detach", "prometheus"])?;
    let visitor = fleet.visitor_arrives()?;
    say("up, and everything is healthy");

    confined(fleet)?;
    say("no container may more than the file says");
    apart(fleet)?;
    say("nobody reaches what is not theirs");

    ensure!(!fleet.visitor_reaches(SSH, 2), "port 22 of bastion-1 is open to everybody");
    knocked_by_the_readme(fleet)?;
    say("the README's knock opens the door across containers");
    waiting_connection_gets_in(fleet, &visitor)?;
    say("a connection that waited gets in by its retransmission, from the address that the visitor has");

    twice(fleet)?;
    say("up again changes nothing");
    eventually("the door closes by itself", || {
        ensure!(!fleet.visitor_reaches(SSH, 1), "it is open");
        Ok(())
    })?;
    ensure!(fleet.list("openings")?.is_empty(), "an opening outlived its time");
    say("the door has closed by itself");

    let following = fleet.following()?;
    survives(fleet, &following)?;
    say(&format!(
        "{following}, which followed the visitor, was killed: the knock opens, and up brings it back"
    ));
    let leader = fleet.leading("etcd-1")?;
    let follower = if leader == "etcd-2" { "etcd-3" } else { "etcd-2" };
    survives(fleet, follower)?;
    say(&format!("{follower}, a member of etcd, was killed: likewise"));
    let leader = fleet.leading("etcd-1")?;
    survives(fleet, &leader)?;
    say(&format!("{leader}, which led etcd, was killed: likewise"));

    host_comes_back(fleet)?;
    say("bastion-1, whose network ended with it, is guarded again once its agent was restarted");

    scraped(fleet)?;
    say("Prometheus scrapes agents, controllers and etcd, and knows the rules");
    fleet.visitor_leaves()?;
    leaves_nothing(fleet)?;
    say("down takes everything along");
    Ok(())
}

/// The engine's settings, and what the kernel says of the processes.
fn confined(fleet: &Fleet) -> Result<()> {
    for (service, container) in fleet.containers()? {
        let host = &container["HostConfig"];
        let is_agent = service.starts_with("agent-");
        let added: BTreeSet<&str> =
            host["CapAdd"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let wanted = if is_agent { BTreeSet::from(["NET_ADMIN", "NET_RAW"]) } else { BTreeSet::new() };
        ensure!(added == wanted, "{service} is given {added:?}");
        ensure!(host["CapDrop"] == serde_json::json!(["ALL"]), "{service} drops {}", host["CapDrop"]);
        ensure!(host["ReadonlyRootfs"] == true && host["Privileged"] == false, "{service} may write");
        ensure!(
            host["SecurityOpt"] == serde_json::json!(["no-new-privileges:true"]),
            "{service} may get more"
        );
        ensure!(
            host["Memory"].as_i64() > Some(0) && host["PidsLimit"].as_i64() > Some(0),
            "{service} has no bounds"
        );
        ensure!(host["PidMode"] == "" && host["IpcMode"] != "host", "{service} sees the machine's");
        if container["State"]["Running"] == true {
            let status = fleet.status_of_process(&Fleet::container(&service))?;
            let bound = if is_agent { 1 << 12 | 1 << 13 } else { 0 }; // CAP_NET_ADMIN, CAP_NET_RAW: capabilities(7)
            for set in ["CapEff", "CapPrm", "CapBnd"] {
                let held = u64::from_str_radix(&status[set], 16)?;
                ensure!(held & !bound == 0, "{service} holds {set} {held:x}");
            }
            ensure!(status["NoNewPrivs"] == "1", "{service} may get more");
            let user = status["Uid"].split_whitespace().next().unwrap_or_default();
            let wanted = match service.as_str() {
                _ if is_agent || service.starts_with("etcd-") => "0",
                _ if service.starts_with("ctl-") => "65532",
                _ => "65534",
            };
            ensure!(user == wanted, "{service} runs as {user}");
        }
    }
    Ok(())
}

/// Each pair is tried from where it must work too, so that a wrong name cannot pass for a wall.
fn apart(fleet: &Fleet) -> Result<()> {
    let address = |service: &str, network: &str| {
        let pattern =
            format!("{{{{(index .NetworkSettings.Networks \"{}_{network}\").IPAddress}}}}", fleet::PROJECT);
        fleet.docker(&["inspect", "--format", &pattern, &Fleet::container(service)])
    };
    let (etcd, controller) = (address("etcd-1", "store")?, address("ctl-1", "fleet")?);
    for (from, to, may) in [
        ("ctl-1", format!("{etcd}/2379"), true),
        ("edge-1", format!("{etcd}/2379"), false),
        ("prometheus", format!("{controller}/7681"), true),
        ("edge-1", format!("{controller}/7600"), true),
    ] {
        ensure!(fleet.reaches(&Fleet::container(from), &to, 2) == may, "from {from} to {to}: not {may}");
    }
    for hidden in [format!("{controller}/7600"), format!("{etcd}/2379"), "edge-1/9600".to_owned()] {
        ensure!(!fleet.visitor_reaches(&hidden, 2), "{hidden} can be reached from outside");
    }
    Ok(())
}

fn knocked_by_the_readme(fleet: &Fleet) -> Result<()> {
    let readme = std::fs::read_to_string(tree::top().join("deploy/compose/README.md"))?;
    let line =
        format!("docker compose run --rm laptop knock {} --then-wait tcp/22@bastion-1", KNOCK.join(" "));
    ensure!(readme.lines().any(|written| written.trim() == line), "the README has no line: {line}");
    let words: Vec<&str> = line.split_whitespace().skip(2).collect();
    let said = fleet.compose(&[&words[..1], &["-T"], &words[1..]].concat())?;
    ensure!(said.contains("tcp/22 at bastion-1 is open"), "{said}");
    fleet.operator(&["close", "--door", "bastion-ssh"])?;
    Ok(())
}

/// A client whose connection is dropped sends its SYN again after a second: that is no knock, and gets in.
fn waiting_connection_gets_in(fleet: &Fleet, visitor: &str) -> Result<()> {
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| fleet.visitor_reaches(SSH, 30));
        fleet.visitor_knocks(&[])?;
        ensure!(waiting.join().is_ok_and(|reached| reached), "the connection that waited did not get in");
        Ok(())
    })?;
    let openings = fleet.list("openings")?;
    let sources: Vec<&Value> =
        openings.iter().filter_map(|opening| opening.pointer("/spec/source")).collect();
    ensure!(sources == [visitor], "the visitor is {visitor}; openings: {openings:?}");
    Ok(())
}

/// Neither certificates nor doors change, and whoever runs goes on.
fn twice(fleet: &Fleet) -> Result<()> {
    let picture = || -> Result<_> {
        let containers = fleet.containers()?;
        let lasting = containers.iter().filter(|(_, container)| container["State"]["Running"] == true);
        let started: BTreeMap<String, String> = lasting
            .map(|(name, c)| (name.clone(), format!("{} {}", c["Id"], c["State"]["StartedAt"])))
            .collect();
        let mut files = String::new();
        for (once, folder) in [("pki", "/pki"), ("pki-etcd", "/pki"), ("seal-key", "/keys")] {
            let (from, sum) =
                (Fleet::container(once), format!("find {folder} -type f -exec sha256sum {{}} +"));
            // As root: the image's own user may read no key.
            let reader = ["run", "--rm", "--user", "0", "--volumes-from", &from, images::HOST];
            files += &fleet.docker(&[&reader[..], &["sh", "-c", &sum]].concat())?;
        }
        // What is asked for; how many openings there are now stands beside it.
        let doors: Vec<_> = fleet
            .list("doors")?
            .iter()
            .map(|door| (door["metadata"]["name"].clone(), door["spec"].clone()))
            .collect();
        ensure!(files.lines().count() > 30 && doors.len() == 1, "{files}\n{doors:?}");
        Ok((started, files, doors))
    };
    let before = picture()?;
    fleet.compose(&["up", "--detach"])?;
    fleet.wait_until_well()?;
    let after = picture()?;
    ensure!(after.0 == before.0, "up started anew: {:?}, before {:?}", after.0, before.0);
    ensure!(after.1 == before.1, "up made other files:\n{}\nbefore:\n{}", after.1, before.1);
    ensure!(after.2 == before.2, "up changed the doors: {:?}, before {:?}", after.2, before.2);
    Ok(())
}

/// A knock opens while a service is away that was killed, and `up` brings it back.
fn survives(fleet: &Fleet, service: &str) -> Result<()> {
    fleet.docker(&["kill", &Fleet::container(service)])?;
    let said = fleet.visitor_knocks(&["--retry", "5"])?;
    ensure!(said.contains("is open"), "{said}");
    ensure!(fleet.containers()?[service]["State"]["Running"] == false, "{service} came back by itself");
    fleet.operator(&["close", "--door", "bastion-ssh"])?;
    ensure!(!fleet.visitor_reaches(SSH, 2), "the door did not close");
    fleet.compose(&["up", "--detach"])?;
    fleet.wait_until_well()
}

/// The one thing that `up` cannot see, as the README says: an agent in the network of a container that is gone.
fn host_comes_back(fleet: &Fleet) -> Result<()> {
    fleet.docker(&["kill", &Fleet::container("bastion-1")])?;
    fleet.compose(&["up", "--detach"])?;
    eventually("the agent is seen to be cut off", || {
        let health = &fleet.containers()?["agent-bastion-1"]["State"]["Health"]["Status"];
        if health == "unhealthy" { Ok(()) } else { bail!("it is {health}") }
    })?;
    fleet.compose(&["restart", "agent-bastion-1"])?;
    fleet.wait_until_well()?;
    ensure!(!fleet.visitor_reaches(SSH, 2), "the door's port is open to everybody");
    let said = fleet.visitor_knocks(&["--retry", "5"])?;
    ensure!(said.contains("is open"), "{said}");
    Ok(())
}

fn scraped(fleet: &Fleet) -> Result<()> {
    let ask = |query: &str| {
        let prometheus = Fleet::container("prometheus");
        fleet.docker(&["exec", &prometheus, "promtool", "query", "instant", "http://127.0.0.1:9090", query])
    };
    eventually("all nine targets are scraped", || {
        let up = ask("count by (job) (up == 1)")?;
        for job in ["fleetknock-agent", "fleetknock-controller", "etcd"] {
            let line = up.lines().find(|line| line.contains(&format!("\"{job}\"")));
            ensure!(line.is_some_and(|line| line.contains("=> 3 ")), "{up}");
        }
        Ok(())
    })?;
    let rules = tree::top().join("deploy/prometheus/rules.yml");
    let recorded = "fleet:fleetknock_knocks_captured:rate5m";
    ensure!(std::fs::read_to_string(rules)?.contains(recorded), "rules.yml has no {recorded}");
    eventually("rules are evaluated", || {
        let said = ask(recorded)?;
        if said.is_empty() { bail!("nothing is recorded yet") } else { Ok(()) }
    })
}

fn leaves_nothing(fleet: &Fleet) -> Result<()> {
    fleet.compose(&["--profile", "extras", "down", "--volumes"])?;
    let name = format!("name={}", fleet::PROJECT);
    for kind in [&["ps", "--all"][..], &["volume", "ls"], &["network", "ls"]] {
        let left = fleet.docker(&[kind, &["--quiet", "--filter", &name]].concat())?;
        ensure!(left.is_empty(), "left of {kind:?}: {left}");
    }
    Ok(())
}

/// The file as `docker-compose` understands it, with everything.
fn whole_file() -> Result<Value> {
    let mut compose = Command::new("docker-compose");
    compose.args(["--env-file", ".env", "config"]).current_dir(tree::top().join("deploy"));
    for variable in ["COMPOSE_PROFILES", "COMPOSE_PROJECT_NAME", "FLEETKNOCK_OTLP"] {
        compose.env_remove(variable);
    }
    Ok(serde_saphyr::from_str(&run(&mut compose)?)?)
}
