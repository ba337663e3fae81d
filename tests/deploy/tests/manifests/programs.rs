//! What manifests pass to the programs, the programs take.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use fleetknock_deploy::{
    manifests::{containers, items, overlay, pods, rendered, text, which},
    run::run,
    tree,
};
use serde_json::Value;

use crate::cases;

/// The exit code for something that is not there (EX_UNAVAILABLE of sysexits.h).
const NO_CLUSTER: i32 = 69;
/// Ends well when the bytes of a certificate hold a text.
const HAS: &str = "import ssl, sys
sys.exit(sys.argv[2].encode() not in ssl.PEM_cert_to_DER_cert(open(sys.argv[1]).read()))";

#[test]
fn every_setting_is_one_that_the_programs_take() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let files = Files::make(folder.path())?;
    let (mut judged, mut tried, mut commands) = (BTreeSet::new(), 0, 0);
    for (name, objects) in everywhere()? {
        for (owner, pod) in pods(&objects) {
            for container in containers(pod).filter(|it| text(&it["image"]).contains("fleetknock/")) {
                let who = format!("{name}: {owner}, {}", text(&container["name"]));
                let agent = container["name"] == "agent";
                let program = program(if agent { "fleetknock-agent" } else { "fleetknock-controller" })?;
                let arguments: Vec<_> = items(&container["args"]).map(|it| files.put_in(text(it))).collect();
                let variables = files.variables(container)?;
                if !judged.insert((arguments.clone(), variables.clone())) {
                    continue;
                }
                tried += 1;
                let mut command = Command::new(&program);
                command.args(&arguments).env_clear().envs(variables);
                if arguments.first().is_some_and(|it| it == "kubernetes") {
                    commands += 1;
                    takes_all_but_the_cluster(&mut command).with_context(|| who.clone())?;
                    continue;
                }
                run(command.arg("--check-config")).with_context(|| who.clone())?;
            }
        }
    }
    ensure!(
        tried >= 14 && commands >= 5,
        "only {tried} different containers were tried, {commands} commands"
    );
    Ok(())
}

/// A command that asks the API server first: without one it gets as far as that, its arguments are right by then.
fn takes_all_but_the_cluster(command: &mut Command) -> Result<()> {
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    let far = output.status.code() == Some(NO_CLUSTER)
        && said.contains("cannot tell where the Kubernetes API server is");
    ensure!(far, "{command:?} ended with {}: {said}", output.status);
    Ok(())
}

#[test]
fn a_command_that_is_not_taken_is_found() -> Result<()> {
    let tried = |arguments: &[&str]| {
        takes_all_but_the_cluster(Command::new(program("fleetknock-controller")?).args(arguments).env_clear())
    };
    tried(&["kubernetes", "node-config", "--node=n-1", "--out=out"])?;
    for wrong in [
        &["kubernetes", "node-config", "--node=n-1", "--file=out"][..],
        &["kubernetes", "node-config", "--node=n-1"],
        &["kubernetes", "pki", "--namespace=A"],
        &["kubernetes", "certificates"],
    ] {
        ensure!(tried(wrong).is_err(), "{wrong:?} is taken");
    }
    Ok(())
}

#[test]
fn certificates_of_cert_manager_name_who_the_programs_look_for() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let files = Files::make(folder.path())?;
    let values: Vec<_> = cases::all().into_iter().map(|(_, values)| values).collect();
    let values =
        values.into_iter().filter(|values| values["tls"]["mode"] == "certManager").collect::<Vec<_>>();
    let mut named = 0;
    for (objects, _) in rendered(&values)? {
        for certificate in objects.iter().filter(|object| object["kind"] == "Certificate") {
            let name = text(&certificate["metadata"]["name"]);
            let own = match name {
                "fleetknock-ca" | "fleetknock-trust" => {
                    ensure!(
                        certificate["spec"]["uris"].is_null(),
                        "{} speaks for somebody",
                        which(certificate)
                    );
                    continue;
                }
                "fleetknock-admin" => "admin",
                controller => controller,
            };
            // What `fleetknock pki issue` writes for the same one.
            let file = files.0.join("pki").join(format!("{own}.crt"));
            let uri = text(&certificate["spec"]["uris"][0]);
            ensure!(uri.starts_with("fleetknock://"), "{name}: {uri}");
            let mut look = Command::new(tree::target().join("tools/bin/python"));
            run(look.args(["-c", HAS]).arg(file).arg(uri)).with_context(|| format!("{name} is not {uri}"))?;
            named += 1;
        }
    }
    ensure!(named == 6, "{named} certificates were looked at");
    Ok(())
}

/// A program of this build: beside this test, or one folder above.
fn program(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let found = own.ancestors().skip(1).take(2).map(|folder| folder.join(name)).find(|path| path.is_file());
    found.with_context(|| format!("{name} is not built: cargo build --workspace --bins --all-features"))
}

/// Files such as pods are given, in a folder that stands for the root of theirs.
struct Files(PathBuf);

impl Files {
    fn make(folder: &Path) -> Result<Self> {
        let files = Self(folder.to_owned());
        let (tls, etcd) = (folder.join("etc/fleetknock/tls"), folder.join("etc/fleetknock/etcd"));
        for made in [&tls, &etcd, &folder.join("etc/fleetknock/node")] {
            fs::create_dir_all(made)?;
        }
        for key in ["seal.key", "new.key", "old.key"] {
            let mut make = Command::new(program("fleetknock-controller")?);
            run(make.args(["seal-key", "--out"]).arg(tls.join(key)))?;
        }
        let pki = folder.join("pki");
        let fleetknock = |arguments: &[&str]| -> Result<String> {
            run(Command::new(program("fleetknock")?).arg("pki").args(arguments).arg("--dir").arg(&pki))
        };
        fleetknock(&["init", "--fleet", "default"])?;
        for number in ["0", "1", "2"] {
            fleetknock(&["issue", "controller", &format!("fleetknock-controller-{number}")])?;
        }
        fleetknock(&["issue", "user", "admin", "--role", "admin"])?;
        for (from, to) in [("ca.crt", "ca.crt"), ("admin.crt", "tls.crt"), ("admin.key", "tls.key")] {
            fs::copy(pki.join(from), etcd.join(to))?;
        }
        let mut password = fs::OpenOptions::new();
        std::os::unix::fs::OpenOptionsExt::mode(&mut password, 0o600);
        std::io::Write::write_all(
            &mut password.write(true).create_new(true).open(etcd.join("password"))?,
            b"secret",
        )?;
        // What the init container writes.
        fs::write(folder.join("etc/fleetknock/node/agent.yaml"), "label: [kubernetes.io/os=linux]\n")?;
        Ok(files)
    }

    /// A text with what stands for variables of the pod, and paths that are there.
    fn put_in(&self, text: &str) -> String {
        let here = self.0.display();
        let fields = [
            ("$(POD_NAME)", "fleetknock-controller-0"),
            ("$(POD_NAMESPACE)", "fleetknock"),
            ("$(NODE_NAME)", "node-1"),
            ("$(NODE_IP)", "192.0.2.1"),
        ];
        let text = fields.into_iter().fold(text.to_owned(), |text, (of, is)| text.replace(of, is));
        text.replace("/etc/fleetknock/", &format!("{here}/etc/fleetknock/"))
    }

    /// The environment of a container; those from fields of the pod are in the arguments already.
    fn variables(&self, container: &Value) -> Result<BTreeMap<String, String>> {
        let given = items(&container["env"]).filter(|it| it["value"].is_string());
        let given = given.map(|it| {
            let name = text(&it["name"]);
            // A variable that no program reads would be passed in vain.
            ensure!(name.starts_with("FLEETKNOCK_"), "{name} is of no program of ours");
            let program =
                if container["name"] == "agent" { "fleetknock-agent" } else { "fleetknock-controller" };
            let help = run(Command::new(self::program(program)?).arg("--help"))?;
            ensure!(help.contains(&format!("[env: {name}]")), "{program} reads no {name}");
            Ok((name.to_owned(), self.put_in(text(&it["value"]))))
        });
        given.collect()
    }
}

fn everywhere() -> Result<Vec<(&'static str, Vec<Value>)>> {
    let (names, values): (Vec<_>, Vec<_>) = cases::all().into_iter().unzip();
    let made = names.into_iter().zip(rendered(&values)?.into_iter().map(|(objects, _)| objects));
    made.map(Ok).chain(["single", "ha"].map(|name| Ok((name, overlay(name)?)))).collect()
}
