//! Asks a program's admin server whether the program is ready: the other end of `/ready`, for health checks in images
//! that hold no other program.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use serde::Deserialize;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tonic::codegen::http::Uri;

use crate::{
    config::ConfigError,
    exit,
    tls::{ConnectError, Connector, Spoken},
};

#[cfg(test)]
mod tests;

/// From dialling to the end of the answer: less than health checks are given.
const ANSWERS_WITHIN: Duration = Duration::from_secs(4);
/// The names of all that can be missing take a few hundred bytes.
const ANSWER_BYTES_MAX: u64 = 16 * 1024;
/// What container engines take as unhealthy.
const NOT_READY: u8 = 1;

/// Asks at the address where a program serves, in TLS with a connector; `setting` is the flag that gives the address.
/// This is all that the process does: it is not to be called within a runtime.
///
/// # Errors
/// [`ConfigError::Said`] when the program is ready, so that this is printed and the process ends with 0. With 1 it ends
/// otherwise: when something is missing, nobody answers, or there is no address.
pub fn ready(
    setting: &'static str,
    address: Option<SocketAddr>,
    tls: impl FnOnce() -> anyhow::Result<Option<Connector>>,
) -> anyhow::Result<()> {
    let asked = exit::block_on(Some(1), async {
        let address = address.ok_or(NotReady::Unasked { setting })?;
        Ok(ask(address, tls()?).await?)
    });
    asked.map_err(|error| exit::coded(NOT_READY, error))?;
    Err(ConfigError::Said { text: "ready\n".to_owned() }.into())
}

/// Asks once.
///
/// # Errors
/// When it is not ready, or does not say.
pub async fn ask(address: SocketAddr, tls: Option<Connector>) -> Result<(), NotReady> {
    let address = reachable(address);
    let unreachable = |source| NotReady::Unreachable { address, source };
    let question = async {
        match tls {
            None => {
                let stream = TcpStream::connect(address).await.map_err(unreachable)?;
                talk(stream, address).await.map_err(unreachable)
            }
            Some(connector) => {
                let uri: Uri = format!("https://{address}/").parse().map_err(|_| NotReady::Strange)?;
                let stream = connector.speaking(Spoken::Http1).connect(&uri).await?;
                talk(stream, address).await.map_err(unreachable)
            }
        }
    };
    let answer = timeout(ANSWERS_WITHIN, question).await.unwrap_or(Err(NotReady::Silent))?;
    let missing = read(&answer)?;
    if missing.is_empty() { Ok(()) } else { Err(NotReady::Missing(missing)) }
}

/// Who listens on all addresses is asked on this machine.
fn reachable(address: SocketAddr) -> SocketAddr {
    let loopback: IpAddr = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        given => given,
    };
    SocketAddr::new(loopback, address.port())
}

async fn talk(mut stream: impl AsyncRead + AsyncWrite + Unpin, address: SocketAddr) -> io::Result<Vec<u8>> {
    let request = format!(
        "GET /ready HTTP/1.1\r\nhost: {address}\r\naccept: application/json\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let mut answer = Vec::new();
    match stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await {
        // In TLS without a last word: whether the answer is whole is seen in it.
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => Err(error),
        _ => Ok(answer),
    }
}

#[derive(Deserialize)]
struct Answer {
    ready: bool,
    missing: Vec<String>,
}

/// What the answer says is missing. The status alone would take any web server for a program that is ready.
fn read(answer: &[u8]) -> Result<Vec<String>, NotReady> {
    let text = std::str::from_utf8(answer).map_err(|_| NotReady::Strange)?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or(NotReady::Strange)?;
    let status = head.split_ascii_whitespace().nth(1).ok_or(NotReady::Strange)?;
    let answer: Answer = serde_json::from_str(body).map_err(|_| NotReady::Strange)?;
    match (status, answer.ready, answer.missing.is_empty()) {
        ("200", true, true) | ("503", false, false) => Ok(answer.missing),
        _ => Err(NotReady::Strange),
    }
}

/// Why a program does not count as ready.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotReady {
    /// It says so itself.
    #[error("not ready: {}", .0.join(", ").escape_debug())]
    Missing(Vec<String>),
    /// No answer in time.
    #[error("no answer within {ANSWERS_WITHIN:?}")]
    Silent,
    /// Something else than a program of ours answers.
    #[error("what answers is not the admin server of such a program")]
    Strange,
    /// In TLS it is not the right one, or there is no TLS.
    #[error("cannot ask: {0}")]
    Tls(#[from] ConnectError),
    /// No address to ask at.
    #[error(
        "there is no {setting}: give the address at which the running one serves /ready, as it was given to it"
    )]
    Unasked {
        /// The flag that gives it.
        setting: &'static str,
    },
    /// Nobody is there.
    #[error("cannot ask at {address}: {source}")]
    Unreachable {
        /// Who was dialled.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}
