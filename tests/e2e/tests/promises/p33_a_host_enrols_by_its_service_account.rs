//! Promise 33: in a cluster, a host enrols by the token of its pod's service account, and by no other. The agent runs as the
//! DaemonSet starts it, its labels are those of the node, it guards for real, and a knock opens.

mod api_server;

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{PermissionsExt as _, chown, symlink},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use fleetknock_e2e::{SOON, SSH, doors};
use fleetknock_lab::{Fleet, Host, Lab, Pki, Process, Reach, fleet::text, programs, wait_until};
use serde_json::json;

use self::api_server::{ApiServer, Cluster, Holder};

/// How long an agent may take to try again, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// In the form of a token, RFC 7515 section 3.1.
const OWN: &str = "eyJhbGciOiJSUzI1NiJ9.eyJhIjoxfQ.b3du";
const OF_OTHERS: &str = "eyJhbGciOiJSUzI1NiJ9.eyJhIjoyfQ.b3RoZXI";
const FOR_THE_API: &str = "eyJhbGciOiJSUzI1NiJ9.eyJhIjozfQ.YXBp";
const ACCOUNT: &str = "fleetknock/fleetknock-agent";
/// What a container runtime does: a root that cannot be written but for the volume `$0`, two capabilities, and no way to
/// become anybody else.
const CONTAINER: &str = "mount --bind \"$0\" \"$0\" && mount -o remount,bind,ro / && \
    exec setpriv --inh-caps=-all --bounding-set=-all,+net_raw,+net_admin --no-new-privs \"$@\"";
/// The user of the controller's image, which writes what the init container leaves to the agent.
const NOBODY_IN_PARTICULAR: u32 = 65_532;

#[test]
fn and_by_no_other() -> Result<()> {
    Lab::scenario("cluster", |lab| {
        let pki = Pki::create(lab, "fleet", "blue")?;
        let (control, node) = (lab.host("control")?, lab.host("node-1")?);
        let (client, stranger) = (lab.client("client")?, lab.client("stranger")?);
        node.serve(&[SSH], &[])?;
        let api = ApiServer::start(&control, lab.directory(), cluster())?;
        let flags = [
            format!("--kubernetes-enroll={ACCOUNT}"),
            format!("--issuer-cert={}", pki.certificate().display()),
            format!("--issuer-key={}", pki.key().display()),
        ];
        let fleet = Fleet::start_trusted_with(lab, &pki, control.clone(), &flags, &[api.variable()?])?;
        let opens = format!("hosts: {{matchLabels: {{ssh: by-knock}}}}, ports: [tcp/{SSH}], for: 60s");
        fleet.apply(&doors::at_one("ssh", "node-1", &opens))?;

        let pod = Pod::new(lab.directory(), &pki)?;
        pod.configure(&control, &api)?;
        let agent = pod.start(&node, &fleet.url())?;
        let told = |words: &str| -> Result<bool> {
            ensure!(agent.is_running(), "the agent ended: {}", agent.log());
            let events = fleet.list("events")?;
            Ok(events
                .iter()
                .any(|event| text(event, "message").is_some_and(|message| message.contains(words))))
        };
        let refused = "the token is that of system:serviceaccount:default:default; pods of the service account \
                       fleetknock/fleetknock-agent enrol here";
        wait_until("the token of another account to be refused", PATIENCE, || told(refused))?;
        pod.token.swap(FOR_THE_API)?;
        let refused = "the cluster does not vouch for the token";
        // The agent says so; the events of a minute are told as one.
        wait_until("a token for the API server to be refused", PATIENCE, || {
            Ok(agent.log().contains(refused))
        })?;
        ensure!(fleet.list("hosts")?.is_empty(), "somebody has enrolled");
        ensure!(client.reaches(node.at(SSH))?, "a host that is not enrolled is guarded");

        pod.token.swap(OWN)?;
        wait_until("the host to be enrolled", PATIENCE, || told("host node-1 got its first certificate"))?;
        fleet.wait_connected(1)?;
        let host = fleet.cli_ok(&["get", "hosts", "-o", "json"])?;
        ensure!(host.contains("topology.kubernetes.io/zone") && host.contains("z-1"), "{host}");
        let events = fleet.cli_ok(&["get", "events", "-o", "json"])?;
        ensure!(
            events
                .contains("kubernetes serviceaccount fleetknock/fleetknock-agent pod fleetknock-agent-x7k2p"),
            "{events}"
        );

        fleet.wait_guarded(&stranger, &[node.at(SSH), node.at6(SSH)])?;
        client.knock(None, &doors::knock_at_one(|port| node.at(port)))?;
        wait_until("the door to open", SOON, || client.reaches(node.at(SSH)))?;
        ensure!(stranger.reach(node.at(SSH))? == Reach::Filtered, "it is open for the stranger");
        let said = [agent.log(), fleet.controller()?.log(), events].concat();
        for token in [OWN, OF_OTHERS, FOR_THE_API] {
            ensure!(!said.contains(token), "a token was told");
        }
        Ok(())
    })
}

fn cluster() -> Cluster {
    let holder = |account, audience, pod| Holder { account, audience, pod, node: "node-1" };
    Cluster {
        tokens: BTreeMap::from([
            (OWN, holder("fleetknock:fleetknock-agent", "fleetknock", "fleetknock-agent-x7k2p")),
            (OF_OTHERS, holder("default:default", "fleetknock", "web-0")),
            (
                FOR_THE_API,
                holder(
                    "fleetknock:fleetknock-agent",
                    "https://kubernetes.default.svc",
                    "fleetknock-agent-x7k2p",
                ),
            ),
        ]),
        nodes: BTreeMap::from([("node-1", json!({"ssh": "by-knock", "topology.kubernetes.io/zone": "z-1"}))]),
    }
}

/// The volumes of an agent's pod.
struct Pod {
    node: PathBuf,
    state: PathBuf,
    ca: Volume,
    token: Volume,
}

impl Pod {
    fn new(directory: &Path, pki: &Pki) -> Result<Self> {
        let (node, state) = (directory.join("node"), directory.join("state"));
        fs::create_dir(&node)?;
        fs::create_dir(&state)?;
        // As the kubelet makes an emptyDir.
        fs::set_permissions(&node, fs::Permissions::from_mode(0o777))?;
        let ca = Volume::new(&directory.join("ca"), "ca.crt")?;
        ca.swap(&fs::read_to_string(pki.certificate())?)?;
        let token = Volume::new(&directory.join("token"), "token")?;
        token.swap(OF_OTHERS)?;
        Ok(Self { node, state, ca, token })
    }

    /// What the init container does, where the API server is.
    fn configure(&self, host: &Host, api: &ApiServer) -> Result<()> {
        let file = self.node.join("agent.yaml");
        let program = programs::path("fleetknock-controller")?;
        let (program, out) = (program.to_string_lossy().into_owned(), format!("--out={}", file.display()));
        host.ok(&["env", &api.variable()?, &program, "kubernetes", "node-config", "--node=node-1", &out])?;
        // In a user namespace there may be nobody but root.
        if fs::read_to_string("/proc/self/uid_map")?.split_whitespace().nth(2) != Some("1") {
            for path in [&file, &self.node] {
                chown(path, Some(NOBODY_IN_PARTICULAR), Some(NOBODY_IN_PARTICULAR))?;
            }
        }
        Ok(())
    }

    fn start(&self, host: &Host, controller: &str) -> Result<Process> {
        let program = programs::path("fleetknock-agent")?;
        let [state, program] = [&self.state, &program].map(|path| path.to_string_lossy().into_owned());
        let of_state = |name: &str| format!("{state}/{name}");
        let arguments = [
            format!("--config={}", self.node.join("agent.yaml").display()),
            "--host=node-1".to_owned(),
            "--fleet=blue".to_owned(),
            format!("--controller={controller}"),
            format!("--enroll-token={}", self.token.file().display()),
            format!("--tls-ca={}", self.ca.file().display()),
            format!("--tls-cert={}", of_state("tls.crt")),
            format!("--tls-key={}", of_state("tls.key")),
            format!("--state={state}"),
            "--firewall=nftables".to_owned(),
            "--http=127.0.0.1:9600".to_owned(),
        ];
        let mut command =
            ["unshare", "--mount", "sh", "-c", CONTAINER, &state, &program].map(str::to_owned).to_vec();
        command.extend(arguments);
        host.spawn("agent", &command)
    }
}

/// A volume as the kubelet writes it: a file is a link through `..data`, and a change is one renamed link (AtomicWriter).
struct Volume {
    path: PathBuf,
    file: &'static str,
}

impl Volume {
    fn new(path: &Path, file: &'static str) -> Result<Self> {
        fs::create_dir(path)?;
        symlink(Path::new("..data").join(file), path.join(file))?;
        Ok(Self { path: path.to_owned(), file })
    }

    fn file(&self) -> PathBuf {
        self.path.join(self.file)
    }

    fn swap(&self, contents: &str) -> Result<()> {
        let number = fs::read_dir(&self.path)?.count();
        let name = format!("..2026_11_23_06_00_00.{number}");
        fs::create_dir(self.path.join(&name))?;
        fs::write(self.path.join(&name).join(self.file), contents)?;
        symlink(&name, self.path.join("..data_tmp"))?;
        fs::rename(self.path.join("..data_tmp"), self.path.join("..data")).context("cannot swap a volume")
    }
}
