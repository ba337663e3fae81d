//! The operator's command against one controller, and what it prints.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::READY;
use crate::{
    host::{Host, Output},
    pki::Identity,
    process::Process,
    programs,
    wait::within,
};

/// An operator on a host who asks one controller.
#[derive(Clone, Debug)]
pub struct Operator {
    host: Host,
    url: String,
    identity: Option<Identity>,
}

impl Operator {
    /// On this host, asking the controller at `url`; in plain text without a certificate to show.
    pub fn new(host: &Host, url: &str, identity: Option<&Identity>) -> Self {
        Self { host: host.clone(), url: url.to_owned(), identity: identity.cloned() }
    }

    /// The same with this certificate.
    #[must_use]
    pub fn with(&self, identity: &Identity) -> Self {
        Self::new(&self.host, &self.url, Some(identity))
    }

    /// What it shows.
    ///
    /// # Errors
    /// When it speaks plain text.
    pub fn identity(&self) -> Result<&Identity> {
        self.identity.as_ref().context("this operator shows no certificate")
    }

    /// The same from another host.
    #[must_use]
    pub fn on(&self, host: &Host) -> Self {
        Self::new(host, &self.url, self.identity.as_ref())
    }

    /// Runs the command.
    ///
    /// # Errors
    /// When it cannot be run. A command that fails is an [`Output`] with its code.
    pub fn cli(&self, arguments: &[&str]) -> Result<Output> {
        self.host.run(&self.command(arguments)?)
    }

    /// Runs a command that must succeed; returns what it printed.
    ///
    /// # Errors
    /// When it fails.
    pub fn cli_ok(&self, arguments: &[&str]) -> Result<String> {
        self.cli(arguments)?.success().with_context(|| format!("fleetknock {} failed", arguments.join(" ")))
    }

    /// Applies a door.
    ///
    /// # Errors
    /// When it is refused.
    pub fn apply(&self, yaml: &str) -> Result<String> {
        // The lab may run in an SSH session; its doors are in another network namespace.
        let command = self.command(&["apply", "-f", "-", "--yes"])?;
        self.host.run_with(&command, Some(yaml), READY)?.success().context("fleetknock apply failed")
    }

    /// What `fleetknock get KIND -o json` lists, with more flags.
    ///
    /// # Errors
    /// When the command fails or prints something that is no list.
    pub fn list(&self, kind: &str, flags: &[&str]) -> Result<Vec<Value>> {
        let mut arguments = vec!["get", kind, "-o", "json"];
        arguments.extend(flags);
        let text = self.cli_ok(&arguments)?;
        let json: Value =
            serde_json::from_str(&text).with_context(|| format!("get {kind} printed no JSON: {text}"))?;
        match json {
            Value::Array(items) => Ok(items),
            _ => bail!("get {kind} printed no list: {text}"),
        }
    }

    /// The one opening that this source has.
    ///
    /// # Errors
    /// When there is none within `deadline`, or more than one.
    pub fn opening_of(&self, source: &str, deadline: Duration) -> Result<Value> {
        let (mut found, _) = within(&format!("an opening for {source}"), deadline, || {
            let mut openings = self.list("openings", &[])?;
            openings.retain(|opening| super::text(opening, "source") == Some(source));
            Ok((!openings.is_empty()).then_some(openings))
        })?;
        ensure!(found.len() == 1, "{source} has {} openings instead of one", found.len());
        found.pop().context("there is none")
    }

    /// Starts `fleetknock watch -o json`: its log has one event in each line.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn watch(&self) -> Result<Process> {
        self.host.spawn("watch", &self.command(&["watch", "-o", "json"])?)
    }

    /// The command as it is run, with these arguments.
    ///
    /// # Errors
    /// When it is not built.
    pub fn command(&self, arguments: &[&str]) -> Result<Vec<String>> {
        let program = programs::path("fleetknock")?;
        let mut command = vec![program.to_string_lossy().into_owned()];
        command.extend(["--controller".to_owned(), self.url.clone()]);
        command.extend(super::trust::flags(self.identity.as_ref()));
        command.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        Ok(command)
    }
}
