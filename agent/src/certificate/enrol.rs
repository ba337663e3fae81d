//! The first certificate, with a token: one of ours, which is good once, or one of a Kubernetes service account, which the
//! kubelet writes anew before it ends. So its file is read again for each try, where the agent still may.

use std::{
    path::Path,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, anyhow};
use fleetknock_core::host::HostName;
use fleetknock_runtime::{
    backoff::Backoff,
    exit,
    tls::{
        Certificate, Connector, Credentials, Expected, Files, OwnFiles,
        authority::{Access, write_new},
    },
};

use super::{Authorities, TakeError, pair::Pair, prepare, read_there, recover, take, token::TokenFile};
use crate::{
    config::Settings,
    link::{
        names::Names,
        office::{Ask, AskError, Office},
    },
};

#[cfg(test)]
mod tests;

/// How long to wait before the controllers are asked again.
const RETRY_LEAST: Duration = Duration::from_millis(500);
const RETRY_MOST: Duration = Duration::from_secs(30);

/// What a token's file says, if one is named. It is read while the agent has all the rights that it was started with: its
/// owner may be root. That it cannot be read matters only once it is needed.
pub fn read_token(settings: &Settings) -> Option<anyhow::Result<TokenFile>> {
    settings.enroll_token.as_deref().map(TokenFile::read)
}

/// Whether a token is named, and there is no certificate that counts yet: its file may be read again and again.
pub fn is_waited_for(settings: &Settings) -> bool {
    let certificate = settings.tls.tls_cert.as_deref().filter(|_| settings.enroll_token.is_some());
    certificate.is_some_and(|path| {
        read_there(path).is_ok_and(|there| is_needed(there.as_deref(), SystemTime::now()))
    })
}

/// Makes good what a crash cut off; and while there is no certificate that counts, and a token's file is named, gets one,
/// however long no controller answers. `token` is what [`read_token`] gave.
///
/// # Errors
/// When the token is refused or its file is none, or files cannot be written; with an exit code.
pub async fn when_needed(
    settings: &Settings,
    files: &Files,
    token: Option<anyhow::Result<TokenFile>>,
) -> anyhow::Result<()> {
    let Some(own) = files.own.as_ref().filter(|_| settings.writes_certificate()) else { return Ok(()) };
    recover(files).map_err(|error| exit::coded(exit::IO, error))?;
    let (Some(path), Some(token)) = (&settings.enroll_token, token) else { return Ok(()) };
    // What cannot be read is told when it is loaded.
    let Ok(there) = read_there(&own.certificate) else { return Ok(()) };
    if !is_needed(there.as_deref(), SystemTime::now()) {
        return Ok(());
    }
    check_key(own, there.is_some())?;
    let token = token?;
    bring_authorities(files, &token, path)?;

    let trusting = Files { own: None, authorities: files.authorities.clone() };
    let credentials = Credentials::load(trusting).map_err(|error| exit::coded(exit::UNAVAILABLE, error))?;
    let connector = Connector::new(credentials, Expected::Uri(settings.controller_rule()));
    let mut office = Office::new(Names::new(settings.controller.clone()), connector);
    let pair = Pair::of(own);
    let request = prepare(&pair).map_err(coded)?;
    tracing::info!(host = %settings.host, "this host has no certificate; it asks for one with its token");
    let of_a_cluster = token.is_of_a_cluster();
    let answer = patiently(&mut office, token, request, &settings.host, path).await?;
    let authorities = take(&answer, files, &pair).map_err(|error| {
        let code = error.exit_code();
        if of_a_cluster {
            return exit::coded(code, anyhow!("this host is not enrolled: {error}"));
        }
        let again = again(&settings.host, path);
        exit::coded(code, anyhow!("this host is not enrolled: {error}; the token is spent: {again}"))
    })?;
    if let Authorities::Left { reason } = authorities {
        tracing::warn!(
            reason,
            "the controllers trust other authorities than --tls-ca names; put theirs there"
        );
    }
    tracing::info!(host = %settings.host, certificate = %own.certificate.display(), "this host is enrolled");
    Ok(())
}

/// Whether there is no certificate that counts: none at all, or one that is over.
fn is_needed(there: Option<&[u8]>, now: SystemTime) -> bool {
    let Some(text) = there else { return true };
    let first = Certificate::from_pem(text).ok().and_then(|certificates| certificates.into_iter().next());
    first.is_some_and(|certificate| certificate.not_after <= now)
}

/// A key without a certificate is not ours: ours come into their places first, and the rest is made good.
fn check_key(own: &OwnFiles, has_certificate: bool) -> anyhow::Result<()> {
    if has_certificate || !own.key.exists() {
        return Ok(());
    }
    let error = anyhow!(
        "--tls-key {} is there, and --tls-cert {} is not; put the certificate back, or move the key away so that a new one \
         is made with --enroll-token",
        own.key.display(),
        own.certificate.display()
    );
    Err(exit::coded(exit::DATA, error))
}

/// Writes the authorities that came with the token, unless the operator put some there.
fn bring_authorities(files: &Files, token: &TokenFile, from: &Path) -> anyhow::Result<()> {
    let Some(path) = files.authorities.iter().find(|path| !path.exists()) else { return Ok(()) };
    let Some(pem) = &token.authorities else {
        let error = anyhow!(
            "--tls-ca {} is not there, and {} holds only a token; put the fleet's ca.crt there, so that the token is shown \
             to nobody else",
            path.display(),
            from.display()
        );
        return Err(exit::coded(exit::NO_INPUT, error));
    };
    let written = write_new(path, pem, Access::Everybody);
    written
        .with_context(|| format!("cannot write --tls-ca {}", path.display()))
        .map_err(|error| exit::coded(exit::IO, error))
}

/// Asks until somebody answers. The token of a cluster is not spent by that, and the next one may be good: that it is
/// refused ends nothing.
async fn patiently(
    office: &mut Office,
    mut token: TokenFile,
    request: String,
    host: &HostName,
    path: &Path,
) -> anyhow::Result<crate::link::office::Answer> {
    let backoff = Backoff::new(RETRY_LEAST, RETRY_MOST, 0.5)?;
    let mut failures = 0_u32;
    let mut said = None;
    loop {
        let ask = Ask::First { token: token.token.clone(), request: request.clone() };
        match office.ask(&ask).await {
            Ok(answer) => return Ok(answer),
            Err(error @ AskError::Refused { .. }) if !token.is_of_a_cluster() => {
                let again = again(host, path);
                let error = anyhow!(
                    "this host is not enrolled: {error}; a token is good once, also when the answer got lost, and for a \
                     short time: {again}"
                );
                return Err(exit::coded(exit::NO_PERMISSION, error));
            }
            Err(error) => {
                failures = failures.saturating_add(1);
                let text = error.to_string();
                if said.as_ref() != Some(&text) {
                    tracing::warn!(
                        error = text,
                        "this host is not enrolled yet; the controllers are asked again and again"
                    );
                    said = Some(text);
                }
                tokio::time::sleep(backoff.random_delay(failures)).await;
                // Where only root may read it, what was read as root is all that there is.
                token = TokenFile::read(path).unwrap_or(token);
            }
        }
    }
}

fn again(host: &HostName, path: &Path) -> String {
    format!(
        "make another one (fleetknock enroll-token --host {host}), put it into {} and start the agent again",
        path.display()
    )
}

fn coded(error: TakeError) -> anyhow::Error {
    exit::coded(error.exit_code(), error)
}
