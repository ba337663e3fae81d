//! Which crate may use which: the arrows of the design, and the crates that only one room may touch.

use cargo_metadata::Metadata;

use crate::tree;

/// Our crates and what each may use of ours, for whatever purpose: a dev-dependency is an arrow too, and what needs
/// more than these belongs in `tests/`, which may use everything.
const ARROWS: &[(&str, &[&str])] = &[
    ("fleetknock-core", &[]),
    ("fleetknock-runtime", &[]),
    ("fleetknock-proto", &["fleetknock-core"]),
    ("fleetknock-agent", &["fleetknock-core", "fleetknock-proto", "fleetknock-runtime"]),
    ("fleetknock-controller", &["fleetknock-core", "fleetknock-proto", "fleetknock-runtime"]),
    ("fleetknock-cli", &["fleetknock-core", "fleetknock-proto", "fleetknock-runtime"]),
];
/// Crates of others that only one of ours may use directly, and why.
const KEPT: &[(&str, &str, &str)] = &[
    ("etcd-client", "fleetknock-controller", "the store hides which database it is"),
    ("redb", "fleetknock-controller", "the store hides which database it is"),
    ("pnet", "fleetknock-agent", "only the agent captures"),
    ("iptables", "fleetknock-agent", "only the agent touches a firewall"),
    ("netlink-packet-netfilter", "fleetknock-agent", "only the agent touches a firewall"),
];

/// A direct dependency, declared in a manifest.
#[derive(Debug)]
struct Arrow {
    from: String,
    /// The folder of `from`, from the top of the checkout.
    folder: String,
    to: String,
}

fn arrows(metadata: &Metadata) -> Vec<Arrow> {
    let mut arrows = vec![];
    for package in metadata.workspace_packages() {
        let folder = package.manifest_path.strip_prefix(&metadata.workspace_root).unwrap().parent().unwrap();
        for dependency in &package.dependencies {
            arrows.push(Arrow {
                from: package.name.to_string(),
                folder: folder.to_string(),
                to: dependency.name.clone(),
            });
        }
    }
    arrows
}

fn trespasses(arrows: &[Arrow]) -> Vec<String> {
    let mut trespasses = vec![];
    for Arrow { from, folder, to } in arrows {
        if let Some((_, room, why)) = KEPT.iter().find(|(kept, room, _)| kept == to && room != from) {
            trespasses.push(format!(
                "{folder}/Cargo.toml: {from} uses {to}, which is kept to {room}: {why}. Ask {room} for what you need"
            ));
        }
        if !to.starts_with("fleetknock-") || folder.starts_with("tests/") {
            continue;
        }
        match ARROWS.iter().find(|(name, _)| name == from) {
            Some((_, allowed)) if allowed.contains(&to.as_str()) => {}
            Some((_, allowed)) => trespasses.push(format!(
                "{folder}/Cargo.toml: {from} uses {to}; it may use {allowed:?} of ours, so that each program can be \
                 built and understood alone. Move what is shared down, or a test of both into tests/"
            )),
            None => trespasses.push(format!(
                "{folder}/Cargo.toml: {from} is a crate without a place in ARROWS of {}; say there what it may use",
                file!()
            )),
        }
    }
    trespasses
}

#[test]
fn crates_use_each_other_as_the_design_says() {
    let arrows = arrows(&tree::packages());
    for (from, to) in [("fleetknock-controller", "etcd-client"), ("fleetknock-proto", "fleetknock-core")] {
        assert!(
            arrows.iter().any(|arrow| arrow.from == from && arrow.to == to),
            "{from} no longer uses {to}"
        );
    }
    tree::none(&trespasses(&arrows));
}

#[test]
fn planted_arrows_are_found() {
    let arrow = |from: &str, folder: &str, to: &str| {
        [Arrow { from: from.to_owned(), folder: folder.to_owned(), to: to.to_owned() }]
    };
    tree::found(
        &trespasses(&arrow("fleetknock-core", "core", "fleetknock-proto")),
        &["core/Cargo.toml", "fleetknock-proto", "Move"],
    );
    tree::found(
        &trespasses(&arrow("fleetknock-agent", "agent", "fleetknock-controller")),
        &["agent/Cargo.toml", "fleetknock-controller"],
    );
    tree::found(
        &trespasses(&arrow("fleetknock-cli", "cli", "etcd-client")),
        &["cli/Cargo.toml", "etcd-client", "kept to"],
    );
    tree::found(
        &trespasses(&arrow("fleetknock-e2e", "tests/e2e", "pnet")),
        &["tests/e2e", "only the agent captures"],
    );
    tree::found(&trespasses(&arrow("fleetknock-new", "new", "fleetknock-core")), &["without a place"]);
    tree::none(&trespasses(&arrow("fleetknock-e2e", "tests/e2e", "fleetknock-controller")));
}
