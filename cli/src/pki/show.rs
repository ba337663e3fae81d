//! `fleetknock pki show`: what certificates say.

use std::{
    path::PathBuf,
    time::{Duration, SystemTime},
};

use clap::Args;
use fleetknock_core::{
    door::yaml::{API_VERSION, time_text as duration_text},
    identity::{Identity, authority_fleet},
    time::Timestamp,
};
use fleetknock_runtime::tls::{Certificate, time_text};
use serde_json::{Value, json};

use super::{held, timestamp};
use crate::{
    output::{Format, Out},
    resource::Resource,
};

/// Show what certificates say: who, until when, by which authority
///
/// It does not judge whether an authority really signed them.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  fleetknock pki show db-1/db-1.crt
  fleetknock pki show hosts/*.crt -o wide
  fleetknock pki show pki/ca.crt -o json")]
pub(super) struct Show {
    /// Files of certificates; of a chain, all are shown
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// How to write it
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

pub(super) fn run(command: &Show, out: &mut Out) -> anyhow::Result<()> {
    let mut shown = vec![];
    for path in &command.files {
        let (_, certificates) = held::read(path)?;
        let file = path.display().to_string();
        shown.extend(certificates.into_iter().map(|certificate| Shown { file: file.clone(), certificate }));
    }
    out.list(command.output, &shown)?;
    let now = SystemTime::now();
    for Shown { file, certificate } in &shown {
        if certificate.not_after <= now {
            out.warning(format!("{file}: it expired at {}", time_text(certificate.not_after)))?;
        } else if certificate.not_before > now {
            out.warning(format!("{file}: it is valid only from {}", time_text(certificate.not_before)))?;
        }
        if let Err(error) = Identity::among(&certificate.uris)
            && !certificate.is_authority
        {
            out.warning(format!("{file}: {error}"))?;
        }
    }
    Ok(())
}

/// Such as `29d`, `11h59m`: whether to renew today does not hang on seconds.
fn left(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        172_800.. => format!("{}d", seconds / 86_400),
        3_600.. => duration_text(Duration::from_secs(seconds - seconds % 60)),
        _ => duration_text(Duration::from_secs(seconds)),
    }
}

struct Shown {
    file: String,
    certificate: Certificate,
}

impl Shown {
    /// Who and of which fleet.
    fn holder(&self) -> (String, String) {
        let certificate = &self.certificate;
        if certificate.is_authority {
            let fleet = authority_fleet(&certificate.uris).map_or("-".to_owned(), |fleet| fleet.to_string());
            return ("authority".to_owned(), fleet);
        }
        match Identity::among(&certificate.uris) {
            Ok(identity) => (identity.who.to_string(), identity.fleet.to_string()),
            Err(_) => ("-".to_owned(), "-".to_owned()),
        }
    }

    fn names(&self) -> Vec<String> {
        let addresses = self.certificate.addresses.iter().map(ToString::to_string);
        self.certificate.dns_names.iter().cloned().chain(addresses).collect()
    }
}

impl Resource for Shown {
    const PLURAL: &'static str = "certificates";
    const COLUMNS: &'static [(&'static str, bool)] = &[
        ("WHO", false),
        ("FLEET", false),
        ("LEFT", false),
        ("UNTIL", false),
        ("ISSUER", false),
        ("FROM", true),
        ("SUBJECT", true),
        ("SERIAL", true),
        ("KEY", true),
        ("MAY BE", true),
        ("NAMES", true),
        ("FILE", true),
    ];

    fn cells(&self, now: Timestamp) -> Vec<String> {
        let certificate = &self.certificate;
        let (who, fleet) = self.holder();
        let joined = |texts: &[String]| if texts.is_empty() { "-".to_owned() } else { texts.join(",") };
        vec![
            who,
            fleet,
            left(timestamp(certificate.not_after).since(now)),
            time_text(certificate.not_after),
            certificate.issuer.clone(),
            time_text(certificate.not_before),
            certificate.subject.clone(),
            certificate.serial.clone(),
            certificate.key.clone(),
            joined(&certificate.purposes),
            joined(&self.names()),
            self.file.clone(),
        ]
    }

    fn document(&self) -> Value {
        let certificate = &self.certificate;
        let (who, fleet) = self.holder();
        let known = |text: String| if text == "-" { Value::Null } else { Value::String(text) };
        json!({
            "apiVersion": API_VERSION,
            "kind": "Certificate",
            "metadata": { "name": self.file },
            "status": {
                "who": known(who),
                "fleet": known(fleet),
                "authority": certificate.is_authority,
                "uris": certificate.uris,
                "names": self.names(),
                "notBefore": timestamp(certificate.not_before).to_string(),
                "notAfter": timestamp(certificate.not_after).to_string(),
                "issuer": certificate.issuer,
                "subject": certificate.subject,
                "serial": certificate.serial,
                "key": certificate.key,
                "purposes": certificate.purposes,
            },
        })
    }
}
