//! Waiting until a TCP port takes connections.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use futures::{StreamExt as _, stream::FuturesUnordered};
use tokio::{
    net::TcpStream,
    time::{MissedTickBehavior, interval, sleep},
};

/// How often a new connection is tried. A closed door drops silently, and the kernel would wait a second before it
/// sends the next SYN of a connection.
const EVERY: Duration = Duration::from_millis(100);
/// Connections being tried at once: earlier ones go on, so that a slow path is not cut off.
const AT_ONCE: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Open,
    /// Never opened, and something answered that nothing listens there.
    Refused,
    /// Never opened, and nothing answered.
    Silent,
}

/// Tries to connect until it works or the time is up.
pub(super) async fn until_open(address: IpAddr, port: u16, time: Duration) -> Outcome {
    let address = SocketAddr::new(address, port);
    let mut outcome = Outcome::Silent;
    let mut tries = FuturesUnordered::new();
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let end = sleep(time);
    tokio::pin!(end);
    loop {
        tokio::select! {
            () = &mut end => return outcome,
            _ = ticks.tick() => {
                if tries.len() < AT_ONCE {
                    tries.push(TcpStream::connect(address));
                }
            }
            Some(result) = tries.next() => match result {
                Ok(_connected) => return Outcome::Open,
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => outcome = Outcome::Refused,
                Err(_) => {}
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_port_that_opens_late_is_seen() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let waiting = tokio::spawn(until_open(address.ip(), address.port(), Duration::from_secs(10)));
        sleep(Duration::from_millis(250)).await;
        let _listener = TcpListener::bind(address).await.unwrap();
        assert_eq!(waiting.await.unwrap(), Outcome::Open);
    }

    #[tokio::test]
    async fn a_port_that_stays_closed_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        assert_eq!(
            until_open(address.ip(), address.port(), Duration::from_millis(300)).await,
            Outcome::Refused
        );
    }
}
