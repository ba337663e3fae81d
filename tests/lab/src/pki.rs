//! Certificates for a lab, made by the real `fleetknock pki`, each holder's in a directory of its own: so that what one of
//! them trusts and shows can change while the others stay as they are.

use std::{
    fs,
    net::IpAddr,
    ops::Range,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, bail};
use fleetknock_runtime::tls::{
    Certificate, Connector, Credentials, Expected, Files, OwnFiles, UriRule,
    authority::{Authority, Order, PrivateKey},
};
use tonic::transport::{Channel, Endpoint};

use crate::{lab::Lab, programs};

/// A fleet's authority.
#[derive(Clone, Debug)]
pub struct Pki {
    directory: PathBuf,
    fleet: String,
}

/// Somebody's certificate and key, and whom it trusts.
#[derive(Clone, Debug)]
pub struct Identity {
    directory: PathBuf,
    name: String,
    fleet: String,
    /// What `fleetknock pki issue` was told, for another one.
    order: Vec<String>,
}

impl Pki {
    /// A new authority of this fleet, in a directory of the lab's that is called `label`.
    ///
    /// # Errors
    /// When the program is not built, or fails.
    pub fn create(lab: &Lab, label: &str, fleet: &str) -> Result<Self> {
        let directory = lab.directory().join("pki").join(label);
        pki(&["init", "--fleet", fleet, "--dir", text(&directory)?])?;
        Ok(Self { directory, fleet: fleet.to_owned() })
    }

    /// The fleet that it vouches for.
    pub fn fleet(&self) -> &str {
        &self.fleet
    }

    /// Its certificate.
    pub fn certificate(&self) -> PathBuf {
        self.directory.join("ca.crt")
    }

    /// Its private key.
    pub fn key(&self) -> PathBuf {
        self.directory.join("ca.key")
    }

    /// A certificate for the agent of a host.
    ///
    /// # Errors
    /// When the program fails.
    pub fn host(&self, name: &str) -> Result<Identity> {
        self.issue(name, &["host", name])
    }

    /// A certificate for a controller, which those who go by addresses find at this one.
    ///
    /// # Errors
    /// When the program fails.
    pub fn controller(&self, name: &str, address: IpAddr) -> Result<Identity> {
        self.issue(name, &["controller", name, "--ip", &address.to_string()])
    }

    /// A new key of this name, with which controllers seal what they store. It is kept beside the certificates, and made
    /// when it is first asked for.
    ///
    /// # Errors
    /// When the program is not built, or fails.
    pub fn seal_key(&self, id: &str) -> Result<String> {
        let file = self.directory.join(format!("seal-{id}.key"));
        let path = text(&file)?.to_owned();
        if !file.exists() {
            run("fleetknock-controller", &["seal-key", "--id", id, "--out", &path])?;
        }
        Ok(path)
    }

    /// A certificate for a user with this role.
    ///
    /// # Errors
    /// When the program fails.
    pub fn user(&self, name: &str, role: &str) -> Result<Identity> {
        self.issue(name, &["user", name, "--role", role])
    }

    /// Replaces somebody's certificate by one that this authority signed for these days, which may be over or still to
    /// come, and for this fleet, which may be another one. The program makes none such.
    ///
    /// # Errors
    /// When it cannot be signed.
    pub fn misissue(&self, identity: &Identity, fleet: &str, days: Range<i64>) -> Result<()> {
        let now = SystemTime::now();
        let day = |number: i64| {
            let away = Duration::from_secs(number.unsigned_abs() * 86_400);
            if number < 0 { now - away } else { now + away }
        };
        let held = Certificate::from_pem(&fs::read(identity.certificate())?)?;
        let uri = held.first().and_then(|held| held.uris.first()).context("the certificate names nobody")?;
        let key = PrivateKey::generate()?;
        let uri = uri.replace(&format!("//{}/", self.fleet), &format!("//{fleet}/"));
        let valid_for = day(days.end).duration_since(day(days.start))?;
        let order = Order::client(&identity.name, &uri, valid_for);
        let authority = Authority::load(&self.directory, now)?;
        let issued = authority.sign(&key.public()?, &order, day(days.start))?;
        fs::write(identity.key(), key.pem())?;
        Ok(fs::write(identity.certificate(), issued.pem)?)
    }

    /// Replaces somebody's certificate and key by new ones of this authority, where they lie. Whom it trusts stays.
    ///
    /// # Errors
    /// When the program fails.
    pub fn reissue(&self, identity: &Identity) -> Result<()> {
        let order: Vec<_> = identity.order.iter().map(String::as_str).collect();
        let (own, out) = (text(&self.directory)?, text(&identity.directory)?);
        pki(&[&["issue"], &order[..], &["--dir", own, "--out", out, "--force"]].concat())
    }

    fn issue(&self, name: &str, order: &[&str]) -> Result<Identity> {
        let directory = self.directory.join(order[..2].join("-"));
        let mut number = 0;
        let mut free = directory.clone();
        while free.exists() {
            number += 1;
            free = directory.with_extension(number.to_string());
        }
        let identity = Identity {
            directory: free,
            name: name.to_owned(),
            fleet: self.fleet.clone(),
            order: order.iter().map(|word| (*word).to_owned()).collect(),
        };
        self.reissue(&identity)?;
        Ok(identity)
    }
}

impl Identity {
    /// Its certificate.
    pub fn certificate(&self) -> PathBuf {
        self.directory.join(format!("{}.crt", self.name))
    }

    /// Its private key.
    pub fn key(&self) -> PathBuf {
        self.directory.join(format!("{}.key", self.name))
    }

    /// Whom it trusts.
    pub fn authorities(&self) -> PathBuf {
        self.directory.join("ca.crt")
    }

    /// The flags that every program takes.
    pub fn flags(&self) -> Vec<String> {
        let path = |path: PathBuf| path.to_string_lossy().into_owned();
        let mut flags = vec!["--tls-cert".to_owned(), path(self.certificate())];
        flags.extend(["--tls-key".to_owned(), path(self.key())]);
        flags.extend(["--tls-ca".to_owned(), path(self.authorities())]);
        flags.extend(["--fleet".to_owned(), self.fleet.clone()]);
        flags
    }

    /// Trusts these authorities from now on, and no other. Nobody ever reads half of it.
    ///
    /// # Errors
    /// When the file cannot be replaced.
    pub fn trust(&self, authorities: &[&Pki]) -> Result<()> {
        let mut all = String::new();
        for authority in authorities {
            all.push_str(&fs::read_to_string(authority.certificate())?);
        }
        let staged = self.directory.join("ca.crt.new");
        fs::write(&staged, all)?;
        Ok(fs::rename(staged, self.authorities())?)
    }

    /// Dials a controller, as a program with this certificate would; whoever the authorities vouch for will do. Call it
    /// inside a host's namespace.
    ///
    /// # Errors
    /// When the files are refused, or nobody trusted answers.
    pub async fn channel(&self, url: &str) -> Result<Channel> {
        self.channel_with(url, |endpoint| endpoint).await
    }

    /// The same with an endpoint that was changed.
    ///
    /// # Errors
    /// The same.
    pub async fn channel_with(
        &self,
        url: &str,
        change: impl FnOnce(Endpoint) -> Endpoint + Send,
    ) -> Result<Channel> {
        let own = OwnFiles { certificate: self.certificate(), key: self.key(), rule: UriRule::anybody() };
        let credentials = Credentials::load(Files { own: Some(own), authorities: vec![self.authorities()] })?;
        let address = url.strip_prefix("https://").context("a URL without https://")?;
        let endpoint = Connector::endpoint(address, url.parse()?)?.tcp_nodelay(true);
        let connector = Connector::new(credentials, Expected::Uri(UriRule::anybody()));
        Ok(change(endpoint).connect_with_connector(connector).await?)
    }
}

fn pki(arguments: &[&str]) -> Result<()> {
    run("fleetknock", &[&["pki"], arguments].concat())
}

/// Runs a program that talks to nobody, outside of all hosts.
fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(programs::path(program)?)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        bail!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("the lab's directory is no text")
}
