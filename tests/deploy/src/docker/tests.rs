//! The engine runs containers, and takes them and its network along when it ends.

use std::process::Command;

use crate::{debian, docker::Engine, run::run};

#[test]
fn an_engine_runs_containers_and_leaves_nothing_behind() {
    let forwarding = || std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap();
    let forwarded = forwarding();
    let engine = Engine::start().unwrap();
    engine.import(&debian::tar("base", &["ca-certificates"]).unwrap(), "fleetknock-test/base").unwrap();
    let network = engine.run(&["network", "create", "inner"]).unwrap();
    let seen =
        engine.run(&["run", "--rm", "--network", "inner", "fleetknock-test/base", "cat", "/etc/os-release"]);
    assert!(seen.unwrap().contains("VERSION_CODENAME=bookworm"));
    engine
        .run(&["run", "--detach", "--init", "--name", "sleeper", "fleetknock-test/base", "sleep", "4242"])
        .unwrap();
    let bridge = format!("br-{}", &network[..12]);
    let links = run(engine.inside("ip").args(["-o", "link"])).unwrap();
    assert!(links.contains(&bridge), "{links}");
    let links = run(Command::new("ip").args(["-o", "link"])).unwrap();
    assert!(!links.contains(&bridge), "a bridge of the engine is in the machine's own network");
    assert_eq!(forwarding(), forwarded, "the machine forwards what it did not");

    let process = engine.process.id();
    drop(engine);
    assert!(!std::path::Path::new(&format!("/proc/{process}")).exists(), "the engine still runs");
    let running = run(Command::new("ps").args(["-eo", "args"])).unwrap();
    assert!(!running.lines().any(|line| line == "sleep 4242"), "a container outlived its engine");

    let again = Engine::start().unwrap();
    assert_eq!(again.run(&["ps", "--all", "--quiet"]).unwrap(), "", "a container was kept");
    assert_ne!(
        again.run(&["images", "--quiet", "fleetknock-test/base"]).unwrap(),
        "",
        "images were not kept"
    );
}
