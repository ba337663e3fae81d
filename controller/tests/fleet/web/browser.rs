//! What a browser does, without one: a request on a connection of its own, and a stream of events.

use std::{net::SocketAddr, time::Duration};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    time::timeout,
};

/// Nothing here takes longer unless it is broken.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

pub(super) struct Browser {
    address: SocketAddr,
}

#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    headers: Vec<(String, String)>,
    pub(super) body: String,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

impl Browser {
    pub(super) fn plain(address: SocketAddr) -> Self {
        Self { address }
    }

    /// As the dashboard's page calls.
    pub(super) async fn call(&self, method: &str, request: &Value) -> Answer {
        let headers = [("content-type", "application/json"), ("fleetknock-request", "1")];
        self.send("POST", &format!("/api/v1/{method}"), &headers, &request.to_string()).await
    }

    pub(super) async fn send(&self, verb: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let sending = async {
            let mut stream = self.request(verb, path, headers, body).await;
            let (status, headers) = head(&mut stream).await;
            let mut body = String::new();
            stream.read_to_string(&mut body).await.unwrap();
            Answer { status, headers, body }
        };
        timeout(PATIENCE, sending).await.unwrap()
    }

    pub(super) async fn watch(&self, path: &str) -> Events {
        let watching = async {
            let mut stream = self.request("GET", path, &[("accept", "text/event-stream")], "").await;
            let (status, headers) = head(&mut stream).await;
            assert!(status == 200, "{status} {headers:?}");
            assert!(headers.iter().any(|(_, value)| value == "text/event-stream"), "{headers:?}");
            Events { stream }
        };
        timeout(PATIENCE, watching).await.unwrap()
    }

    async fn connect(&self) -> Box<dyn Duplex> {
        Box::new(TcpStream::connect(self.address).await.unwrap())
    }

    async fn request(
        &self,
        verb: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> BufReader<Box<dyn Duplex>> {
        let mut stream = BufReader::new(self.connect().await);
        let mut text =
            format!("{verb} {path} HTTP/1.0\r\nhost: {}\r\ncontent-length: {}\r\n", self.address, body.len());
        for (name, value) in headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        text.push_str(body);
        // What is refused early is not read to its end.
        let _refused = stream.write_all(text.as_bytes()).await;
        stream
    }
}

async fn head(stream: &mut BufReader<Box<dyn Duplex>>) -> (u16, Vec<(String, String)>) {
    let mut line = String::new();
    stream.read_line(&mut line).await.unwrap();
    let status = line.split(' ').nth(1).unwrap_or_else(|| panic!("no status: {line}")).parse().unwrap();
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        let Some((name, value)) = line.trim_end().split_once(": ") else { return (status, headers) };
        headers.push((name.to_owned(), value.to_owned()));
    }
}

pub(super) struct Events {
    stream: BufReader<Box<dyn Duplex>>,
}

impl Events {
    /// The next event, also the one that says why there are no more; nothing when the stream is over.
    pub(super) async fn event(&mut self) -> Option<Value> {
        let reading = async {
            loop {
                let mut line = String::new();
                if !matches!(self.stream.read_line(&mut line).await, Ok(1..)) {
                    return None;
                }
                if let Some(data) = line.strip_prefix("data: ") {
                    return Some(serde_json::from_str(data).unwrap());
                }
            }
        };
        timeout(PATIENCE, reading).await.unwrap()
    }
}
