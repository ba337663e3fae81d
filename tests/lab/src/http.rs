//! Asking a program inside a host over HTTP, such as for its metrics.

use std::{
    io::{Read, Write},
    net::SocketAddr,
    time::Duration,
};

use anyhow::{Context, Result};

use crate::{host::Host, probe::connect};

/// How long a connect, and how long an answer may take.
const CONNECT: Duration = Duration::from_secs(1);
const ANSWER: Duration = Duration::from_secs(2);

/// What was answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Such as 200.
    pub code: u16,
    /// The body.
    pub text: String,
}

/// Asks from inside the host. HTTP/1.0: the end of the connection is the end of the answer.
///
/// # Errors
/// When nobody listens, or nothing comes within two seconds.
pub fn get(host: &Host, to: SocketAddr, path: &str) -> Result<Answer> {
    ask(host, to, &format!("GET {path} HTTP/1.0\r\n\r\n"))
}

fn ask(host: &Host, to: SocketAddr, request: &str) -> Result<Answer> {
    let mut stream = host.inside(|| connect(None, to, CONNECT))??;
    stream.set_read_timeout(Some(ANSWER))?;
    stream.write_all(request.as_bytes())?;
    let mut whole = String::new();
    stream.read_to_string(&mut whole).with_context(|| format!("no answer from {to}"))?;
    let (head, text) = whole.split_once("\r\n\r\n").with_context(|| format!("no HTTP answer from {to}"))?;
    let code = head.split_whitespace().nth(1).and_then(|code| code.parse().ok());
    Ok(Answer { code: code.with_context(|| format!("no HTTP answer from {to}"))?, text: text.to_owned() })
}
