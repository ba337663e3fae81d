//! Hosts made of network namespaces, the real programs inside them, and the demo.
//!
//! A [`Lab`] is a switch and the hosts plugged into it, each in a network namespace of its own. Everything in it is named
//! after this process, so that labs never meet, and all of it is taken away again when the lab ends, when the process
//! is interrupted, or, at the latest, by the next lab that starts on this machine. A [`Fleet`] is controllers and agents
//! inside a lab.
//!
//! Needs root, or a user namespace as `tests/scripts/in-lab` makes one.

pub mod abuse;
pub mod browser;
pub mod collector;
pub mod cut;
pub mod demo;
pub mod dialled;
pub mod etcd;
pub mod fleet;
pub mod flood;
pub mod host;
pub mod http;
pub mod knock;
pub mod lab;
pub mod monitor;
pub mod pki;
pub mod probe;
pub mod process;
pub mod programs;
pub mod prometheus;
pub mod serve;
mod signals;
pub mod stolen;
pub mod wait;

pub use crate::{
    abuse::{Resets, Unread, half_open},
    browser::{Browser, Element, Screen},
    cut::Cut,
    dialled::Dialled,
    fleet::{Agent, Controller, Fleet, Operator},
    host::{Host, Output},
    knock::{Shot, Tool},
    lab::Lab,
    monitor::{Monitor, Seen},
    pki::{Identity, Pki},
    probe::{Held, Reach},
    process::Process,
    stolen::StolenAgent,
    wait::{wait_until, within},
};
