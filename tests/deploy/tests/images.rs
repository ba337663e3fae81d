//! The images are built from the Dockerfile as it is, hold what they say, and run as they are declared to.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "helpers of tests fail as tests do"
)]

use std::{
    collections::BTreeSet,
    fs,
    process::Command,
    sync::LazyLock,
    thread,
    time::{Duration, Instant},
};

use fleetknock_deploy::{
    docker::Engine,
    images::{self, TARGETS, VERSION},
    run::run,
    tree,
};
use serde_json::Value;

/// Nothing here takes longer unless it is broken.
const PATIENCE: Duration = Duration::from_secs(90);
/// What every container is run with: no way to write, to gain anything or to have anything.
const CLOSED: [&str; 6] = ["run", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"];

/// One engine for all tests here, with the images built. It ends with this process.
static ENGINE: LazyLock<Engine> = LazyLock::new(|| {
    let engine = Engine::start().unwrap();
    images::build(&engine).unwrap();
    engine
});

#[test]
fn images_say_what_they_are_and_stay_small() {
    // In bytes: twice what they take now would be a mistake. The agent's is Debian's base, iptables and the program.
    for (target, program, user, most) in [
        ("agent", "fleetknock-agent", "", 230_000_000),
        ("controller", "fleetknock-controller", "65532:65532", 35_000_000),
        ("cli", "fleetknock", "65532:65532", 20_000_000),
    ] {
        let image = inspect(&images::name(target));
        let size = image["Size"].as_u64().unwrap();
        println!("{}: {:.1} MB", images::name(target), size as f64 / 1e6);
        assert!(size < most, "{target} takes {size} bytes");
        let config = &image["Config"];
        assert_eq!(config["User"], user, "{target}");
        assert_eq!(config["StopSignal"], "SIGTERM", "{target}");
        assert_eq!(config["Entrypoint"], serde_json::json!([format!("/usr/bin/{program}")]), "{target}");
        assert!(config["Cmd"].is_null(), "{target} has a command of its own");
        let health = (target != "cli").then(|| format!("/usr/bin/{program}"));
        let health = health.map(|program| serde_json::json!(["CMD", program, "--check-ready"]));
        assert_eq!(config["Healthcheck"]["Test"], health.unwrap_or_default(), "{target}");
        let label =
            |name: &str| config["Labels"][format!("org.opencontainers.image.{name}")].as_str().unwrap_or("");
        assert_eq!((label("title"), label("version")), (program, VERSION));
        assert_eq!(label("licenses"), "Apache-2.0 OR MIT");
        assert!(label("source").starts_with("https://") && label("description").len() > 20);
        assert!(!label("revision").is_empty());
    }
}

#[test]
fn programs_run_in_a_closed_container_and_say_what_they_are() {
    for (target, program) in
        TARGETS.into_iter().zip(["fleetknock-agent", "fleetknock-controller", "fleetknock"])
    {
        let image = images::name(target);
        let said = closed(&["--rm", "--network", "none", &image, "--version"]);
        assert_eq!(said, format!("{program} {VERSION}"));
        assert!(closed(&["--rm", "--network", "none", &image, "--help"]).contains("Usage:"));
    }
    let said = closed(&["--rm", &images::name("controller"), "--check-config", "--insecure"]);
    assert_eq!(said, "configuration is valid");
    let agent = ["--check-config", "--insecure", "--host", "edge-1", "--controller", "http://controller"];
    let said = closed(&[&["--rm", &*images::name("agent")], &agent[..]].concat());
    assert_eq!(said, "configuration is valid");
    // Nobody is there to be ready.
    let image = images::name("controller");
    let mut ask = ENGINE.docker();
    ask.args(["run", "--rm", &image, "--check-ready", "--http-plain", "127.0.0.1:7681"]);
    let asked = ask.output().unwrap();
    assert_eq!(asked.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&asked.stderr).contains("cannot ask at 127.0.0.1:7681"));
}

#[test]
fn a_controller_turns_healthy_keeps_its_state_and_ends_in_time() {
    let network = Network::new("keeping");
    let start = |name: &str| {
        closed(&[
            "--detach",
            "--name",
            name,
            "--network",
            network.name,
            "--network-alias",
            "controller.keeping.test",
            "--volume",
            "keeping:/var/lib/fleetknock/controller",
            "--env",
            "FLEETKNOCK_LISTEN=0.0.0.0:7600",
            "--env",
            "FLEETKNOCK_INSECURE=true",
            "--env",
            "FLEETKNOCK_HTTP_PLAIN=0.0.0.0:7681",
            "--health-interval",
            "1s",
            &images::name("controller"),
        ]);
        wait(&format!("{name} healthy"), || health(name) == "healthy");
    };
    start("keeper-1");
    // The programs look names up without a C library beside them: by the network's name server, and in /etc/hosts.
    let by_name = "http://controller.keeping.test:7600";
    ask(network.name, by_name, &["apply", "-f", "-"], Some(&door("kept", "edge-1", 22)));
    let address = ENGINE.run(&[
        "inspect",
        "--format",
        "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}",
        "keeper-1",
    ]);
    let listed = closed(&[
        "--rm",
        "--network",
        network.name,
        "--add-host",
        &format!("listed.test:{}", address.unwrap()),
        &images::name("cli"),
        "get",
        "doors",
        "--insecure",
        "--controller",
        "http://listed.test:7600",
    ]);
    assert!(listed.contains("kept"), "{listed}");

    let begun = Instant::now();
    ENGINE.run(&["stop", "--time", "60", "keeper-1"]).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(50), "it had to be killed");
    let state = &inspect("keeper-1")["State"];
    assert_eq!(state["ExitCode"], 0, "{}", logs("keeper-1"));

    start("keeper-2");
    assert!(ask(network.name, by_name, &["get", "doors"], None).contains("kept"), "the state is gone");
}

#[test]
fn an_agent_guards_and_opens_a_port_with_nftables() {
    guard("nftables");
}

#[test]
fn an_agent_guards_and_opens_a_port_with_iptables() {
    guard("iptables");
}

/// An agent in the network of a container that stands for a host, with a client in another one.
fn guard(driver: &'static str) {
    let network = Network::new(driver);
    let named = |what: &str| format!("{driver}-{what}");
    let (controller, host, agent, client) =
        (named("controller"), named("host"), named("agent"), named("client"));
    closed(&[
        "--detach",
        "--name",
        &controller,
        "--network",
        network.name,
        "--tmpfs",
        "/var/lib/fleetknock/controller:uid=65532,gid=65532,mode=0700",
        &images::name("controller"),
        "--listen",
        "0.0.0.0:7600",
        "--insecure",
    ]);
    let service = "use IO::Socket::INET; my $s = IO::Socket::INET->new(LocalPort => 2222, Listen => 9, ReuseAddr => 1) \
                   or die; while (my $c = $s->accept) { close $c }";
    let base = "debian:bookworm-slim";
    let on = ["run", "--detach", "--init", "--network", network.name, "--name"];
    ENGINE.run(&[&on[..], &[&*host, base, "perl", "-e", service]].concat()).unwrap();
    ENGINE.run(&[&on[..], &[&*client, base, "sleep", "3600"]].concat()).unwrap();
    wait("the service answers", || reaches(&client, &host, 2222));

    let place = format!("container:{host}");
    let url = format!("http://{controller}:7600");
    closed(&[
        "--detach",
        "--name",
        &agent,
        "--network",
        &place,
        "--cap-add",
        "NET_RAW",
        "--cap-add",
        "NET_ADMIN",
        "--tmpfs",
        "/run",
        "--volume",
        &format!("{agent}:/var/lib/fleetknock/agent"),
        "--env",
        "FLEETKNOCK_HTTP=127.0.0.1:9600",
        "--env",
        "FLEETKNOCK_HOST=edge-1",
        "--health-interval",
        "1s",
        "--env",
        &format!("FLEETKNOCK_CONTROLLER={url}"),
        "--env",
        "FLEETKNOCK_INSECURE=true",
        &images::name("agent"),
        "--firewall",
        driver,
        "--state",
        "/var/lib/fleetknock/agent",
    ]);
    wait("the agent healthy", || health(&agent) == "healthy");
    ask(network.name, &url, &["apply", "-f", "-"], Some(&door("ssh", "edge-1", 2222)));
    wait("guard stands", || !reaches(&client, &host, 2222));

    // A port that is closed answers at once; its SYN was a knock all the same.
    wait("the knock opens", || {
        for port in KNOCK {
            reaches(&client, &host, port);
            thread::sleep(Duration::from_millis(100));
        }
        reaches(&client, &host, 2222)
    });
    let bounding = in_container(&agent, &["grep", "CapBnd", "/proc/1/status"]).unwrap();
    assert_eq!(
        bounding.split_whitespace().last(),
        Some("0000000000003000"),
        "more than NET_ADMIN and NET_RAW"
    );

    ask(network.name, &url, &["close", "--door", "ssh"], None);
    wait("it is closed again", || !reaches(&client, &host, 2222));
    ENGINE.run(&["stop", "--time", "60", &agent]).unwrap();
    assert_eq!(inspect(&agent)["State"]["ExitCode"], 0, "{}", logs(&agent));
    assert!(!reaches(&client, &host, 2222), "guard went with the agent");
}

const KNOCK: [u16; 3] = [7412, 51003, 23981];

fn door(name: &str, host: &str, port: u16) -> String {
    let steps: Vec<String> =
        KNOCK.iter().map(|port| format!("{{hosts: {{names: [{host}]}}, port: tcp/{port}}}")).collect();
    format!(
        "apiVersion: fleetknock.io/v1\nkind: Door\nmetadata: {{name: {name}}}\nspec:\n  knock:\n    sequence: [{}]\n    \
         within: 30s\n  opens: {{hosts: {{names: [{host}]}}, ports: [tcp/{port}], for: 60s}}\n",
        steps.join(", ")
    )
}

#[test]
fn lists_of_contents_name_every_package_of_the_programs() {
    let folder = tree::kept().join("sbom");
    images::export(&ENGINE, "sbom", &folder).unwrap();
    for (program, package, features) in [
        ("fleetknock", "fleetknock-cli", ""),
        ("fleetknock-agent", "fleetknock-agent", ""),
        ("fleetknock-controller", "fleetknock-controller", "operator"),
    ] {
        let listed = components(&folder.join(format!("{program}.cdx.json")));
        let mut cargo = Command::new("cargo");
        cargo.args(["tree", "--locked", "--prefix", "none", "--edges", "normal", "--format", "{p}"]);
        cargo.args(["--target", &format!("{}-unknown-linux-gnu", std::env::consts::ARCH)]);
        cargo.args(["--package", package, "--features", features]).current_dir(tree::top());
        let tree = run(&mut cargo).unwrap();
        // NAME vVERSION (PATH or *)
        let linked: BTreeSet<(String, String)> = tree
            .lines()
            .filter_map(|line| line.split_once(" v"))
            .map(|(name, rest)| (name.to_owned(), rest.split(' ').next().unwrap_or_default().to_owned()))
            .filter(|(name, _)| name != package)
            .collect();
        assert!(linked.len() > 100, "{tree}");
        let missing: Vec<_> = linked.difference(&listed).collect();
        assert!(missing.is_empty(), "{program}: {missing:?}");
    }
    let listed = components(&folder.join("debian.cdx.json"));
    let query = ["run", "--rm", "--entrypoint", "dpkg-query", &*images::name("agent"), "--show"];
    let installed = ENGINE.run(&query).unwrap();
    let installed: BTreeSet<(String, String)> = installed
        .lines()
        .filter_map(|line| line.split_once('\t'))
        .map(|(name, version)| (name.split(':').next().unwrap_or_default().to_owned(), version.to_owned()))
        .collect();
    assert_eq!(listed, installed);
    assert!(listed.iter().any(|(name, _)| name == "iptables"));
    // The lists are in the images too.
    let inside = in_image("agent", &["cat", "/usr/share/doc/fleetknock/fleetknock-agent.cdx.json"]);
    assert_eq!(
        inside.trim_end(),
        fs::read_to_string(folder.join("fleetknock-agent.cdx.json")).unwrap().trim_end()
    );
}

/// A network of a test's own, and the end of all containers in it.
struct Network {
    name: &'static str,
}

impl Network {
    fn new(name: &'static str) -> Self {
        ENGINE.run(&["network", "create", name]).unwrap();
        Self { name }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let filter = format!("network={}", self.name);
        let containers = ENGINE.run(&["ps", "--all", "--quiet", "--filter", &filter]).unwrap_or_default();
        for container in containers.lines() {
            if thread::panicking() {
                println!("{container}:\n{}", logs(container));
            }
            let _ = ENGINE.run(&["rm", "--force", "--volumes", container]);
        }
        let _ = ENGINE.run(&["network", "rm", self.name]);
    }
}

fn closed(arguments: &[&str]) -> String {
    ENGINE.run(&[&CLOSED, arguments].concat()).unwrap()
}

/// The command of the image `cli`, speaking to a controller.
fn ask(network: &str, url: &str, arguments: &[&str], file: Option<&str>) -> String {
    let image = images::name("cli");
    let file = file.map(|text| {
        let path = tree::kept().join(format!("{network}.yaml"));
        fs::write(&path, text).unwrap();
        format!("{}:/door.yaml:ro", path.display())
    });
    let mut all = vec!["--rm", "--network", network];
    if let Some(file) = &file {
        all.extend(["--volume", file.as_str()]);
    }
    all.push(&image);
    all.extend(arguments.iter().map(|argument| if *argument == "-" { "/door.yaml" } else { argument }));
    all.extend(["--insecure", "--controller", url]);
    closed(&all)
}

fn inspect(what: &str) -> Value {
    let all: Value = serde_json::from_str(&ENGINE.run(&["inspect", what]).unwrap()).unwrap();
    all[0].clone()
}

fn health(container: &str) -> String {
    inspect(container)["State"]["Health"]["Status"].as_str().unwrap_or_default().to_owned()
}

fn logs(container: &str) -> String {
    let output = ENGINE.docker().args(["logs", container]).output().unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

fn in_container(container: &str, command: &[&str]) -> anyhow::Result<String> {
    ENGINE.run(&[&["exec", container], command].concat())
}

fn in_image(target: &str, command: &[&str]) -> String {
    let image = images::name(target);
    ENGINE.run(&[&["run", "--rm", "--entrypoint", command[0], &*image], &command[1..]].concat()).unwrap()
}

/// Whether a TCP port of another container takes a connection.
fn reaches(client: &str, host: &str, port: u16) -> bool {
    let dial = format!("exec 3<>/dev/tcp/{host}/{port}");
    in_container(client, &["timeout", "1", "bash", "-c", &dial]).is_ok()
}

fn wait(what: &str, done: impl Fn() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(200));
    }
}

/// The names and versions in a list of contents.
fn components(file: &std::path::Path) -> BTreeSet<(String, String)> {
    let list: Value = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    assert_eq!(list["bomFormat"], "CycloneDX");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let components = list["components"].as_array().unwrap();
    components.iter().map(|component| (text(&component["name"]), text(&component["version"]))).collect()
}
