//! Real etcd servers on loopback, each with a directory of its own, ended by their process numbers.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Well above what a start takes on a busy machine.
const START_MAX: Duration = Duration::from_secs(30);
/// How often a start is tried when somebody else took a port in between.
const STARTS_MAX: usize = 5;

/// A cluster of one or several members.
pub(crate) struct Cluster {
    pub(crate) members: Vec<Server>,
}

impl Cluster {
    /// Starts it and waits until it answers.
    pub(crate) fn start(count: usize) -> Self {
        Self::start_with(count, None)
    }

    /// Starts one member that also serves TLS, to clients with a certificate only. The directory holds `ca.pem`,
    /// `server.pem` and `server.key`.
    pub(crate) fn start_secure(certificates: &Path) -> Self {
        Self::start_with(1, Some(certificates))
    }

    fn start_with(count: usize, certificates: Option<&Path>) -> Self {
        for _ in 0..STARTS_MAX {
            let ports: Vec<[u16; 3]> = (0..count).map(|_| free_ports()).collect();
            let name = |index: usize| format!("member-{index}");
            let peers: Vec<_> = ports
                .iter()
                .enumerate()
                .map(|(index, [_, peer, _])| format!("{}=http://127.0.0.1:{peer}", name(index)))
                .collect();
            let mut members: Vec<_> = (0..count)
                .map(|index| Server::start(name(index), ports[index], peers.join(","), certificates))
                .collect();
            if members.iter_mut().all(Server::answers) {
                return Self { members };
            }
        }
        panic!("etcd did not start in {STARTS_MAX} attempts");
    }

    pub(crate) fn urls(&self) -> Vec<String> {
        self.members.iter().map(Server::url).collect()
    }

    /// Which member leads.
    pub(crate) fn leader(&self) -> usize {
        let start = Instant::now();
        while start.elapsed() < START_MAX {
            for (index, member) in self.members.iter().enumerate() {
                let status = member.call("/v3/maintenance/status", "{}");
                let field = |name: &str| {
                    let rest = status.split_once(&format!("\"{name}\":\""))?.1;
                    rest.split_once('"').map(|(value, _)| value.to_owned())
                };
                if let (Some(leader), Some(own)) = (field("leader"), field("member_id"))
                    && leader == own
                {
                    return index;
                }
            }
            thread::sleep(Duration::from_millis(50));
        }
        panic!("etcd has no leader");
    }
}

/// One member.
pub(crate) struct Server {
    name: String,
    /// For clients, for other members, and for clients that use TLS.
    ports: [u16; 3],
    peers: String,
    /// Goes into the cluster's number.
    token: String,
    certificates: Option<PathBuf>,
    directory: TempDir,
    child: Child,
}

impl Server {
    fn start(name: String, ports: [u16; 3], peers: String, certificates: Option<&Path>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let token = "fleetknock-test".to_owned();
        let certificates = certificates.map(Path::to_owned);
        let child = spawn(&name, ports, &peers, &token, certificates.as_deref(), &directory);
        Self { name, ports, peers, token, certificates, directory, child }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports[0])
    }

    pub(crate) fn secure_url(&self) -> String {
        format!("https://127.0.0.1:{}", self.ports[2])
    }

    pub(crate) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.ports[0]).into()
    }

    /// As kill -9 does.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts a killed one again, with what it has on disk.
    pub(crate) fn restart(&mut self) {
        let certificates = self.certificates.as_deref();
        self.child = spawn(&self.name, self.ports, &self.peers, &self.token, certificates, &self.directory);
        assert!(self.answers(), "etcd does not start again");
    }

    /// Takes everything that a killed one had on disk away.
    pub(crate) fn wipe(&self) {
        fs::remove_dir_all(self.data()).unwrap();
    }

    /// Copies what a killed one has on disk aside.
    pub(crate) fn back_up(&self) {
        copy(&self.data(), &self.directory.path().join("backup"));
    }

    /// Puts the copy back.
    pub(crate) fn restore(&self) {
        self.wipe();
        copy(&self.directory.path().join("backup"), &self.data());
    }

    /// A wiped one that starts again is another cluster.
    pub(crate) fn become_another_cluster(&mut self) {
        self.token.push_str("-again");
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Stops it in place: connections stay open, nothing answers. `resume` undoes it.
    pub(crate) fn freeze(&self) {
        self.signal("STOP");
    }

    pub(crate) fn resume(&self) {
        self.signal("CONT");
    }

    /// Asks for users and passwords from now on: `root`, and `knock` with the password `right` and one role, that may
    /// read and write the keys under a prefix and nothing else.
    pub(crate) fn turn_authentication_on(&self, prefix: &str) {
        let [from, end] = [prefix.to_owned(), prefix.strip_suffix('/').unwrap().to_owned() + "0"].map(base64);
        let range = format!(r#"{{"permType":"READWRITE","key":"{from}","range_end":"{end}"}}"#);
        for (path, body) in [
            ("user/add", r#"{"name":"root","password":"r"}"#),
            ("role/add", r#"{"name":"root"}"#),
            ("user/grant", r#"{"user":"root","role":"root"}"#),
            ("user/add", r#"{"name":"knock","password":"right"}"#),
            ("role/add", r#"{"name":"fleet"}"#),
            ("role/grant", &format!(r#"{{"name":"fleet","perm":{range}}}"#)),
            ("user/grant", r#"{"user":"knock","role":"fleet"}"#),
            ("enable", "{}"),
        ] {
            let answer = self.call(&format!("/v3/auth/{path}"), body);
            assert!(answer.contains("revision"), "{path}: {answer}");
        }
    }

    /// A request to the JSON gateway, for what the store has no verb for. Returns the answer's body.
    pub(crate) fn call(&self, path: &str, body: &str) -> String {
        self.request(path, body).unwrap_or_default()
    }

    fn request(&self, path: &str, body: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&self.address(), Duration::from_secs(2))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(
            stream,
            "POST {path} HTTP/1.1\r\nHost: etcd\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
        Ok(body.filter(|_| answer.starts_with("HTTP/1.1 200")).unwrap_or_default())
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").args([format!("-{name}"), self.child.id().to_string()]).status();
        assert!(status.unwrap().success());
    }

    /// Waits until it serves linearizable reads; false when it ended.
    fn answers(&mut self) -> bool {
        let start = Instant::now();
        while start.elapsed() < START_MAX {
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            // "Lw==" is a slash. With authentication on, a refusal is an answer too, but comes with another status.
            if !self.call("/v3/kv/range", r#"{"key":"Lw=="}"#).is_empty() {
                return true;
            }
            thread::sleep(Duration::from_millis(20));
        }
        panic!("etcd does not answer within {START_MAX:?}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(
    name: &str,
    [client, peer, secure]: [u16; 3],
    peers: &str,
    token: &str,
    certificates: Option<&Path>,
    directory: &TempDir,
) -> Child {
    let (mut client, peer) = (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
    let mut tls = vec![];
    if let Some(certificates) = certificates {
        client.push_str(&format!(",https://127.0.0.1:{secure}"));
        tls.push("--client-cert-auth".to_owned());
        for (flag, file) in [("trusted-ca", "ca.pem"), ("cert", "server.pem"), ("key", "server.key")] {
            tls.push(format!("--{flag}-file={}", certificates.join(file).display()));
        }
    }
    let log = std::fs::File::create(directory.path().join("log")).unwrap();
    let spawned = Command::new("etcd")
        .args(["--name", name, "--data-dir"])
        .arg(directory.path().join("data"))
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", peers, "--initial-cluster-state", "new"])
        .args(["--initial-cluster-token", token])
        // A lone member elects itself within one timeout; three on a busy machine keep a steady leader.
        .args(["--heartbeat-interval", "50", "--election-timeout", "500"])
        .args(["--auth-token-ttl", "2"])
        .args(tls)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn();
    spawned.unwrap_or_else(|error| panic!("cannot run etcd ({error}): apt-get install etcd-server"))
}

/// RFC 4648 section 4.
fn base64(text: String) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut encoded = String::new();
    for group in text.as_bytes().chunks(3) {
        let bits = group.iter().fold(0, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for place in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * place) & 63) as usize];
            encoded.push(if place <= group.len() { char::from(digit) } else { '=' });
        }
    }
    encoded
}

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").args([from, to]).status();
    assert!(status.unwrap().success());
}

/// Ports that nobody listens on now. Held together, so that they differ.
fn free_ports() -> [u16; 3] {
    let held = [(); 3].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    held.map(|listener| listener.local_addr().unwrap().port())
}
