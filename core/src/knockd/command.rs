//! Which ports a firewall command opens.

use std::collections::BTreeSet;

use crate::{
    door::OPEN_PORTS_MAX,
    port::{Port, Protocol},
};

/// What a command does, as far as it can be told.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Command {
    pub(super) action: Action,
    /// Empty when none was recognised.
    pub(super) ports: BTreeSet<Port>,
    /// No protocol was named.
    pub(super) guessed_protocol: bool,
    /// It holds knockd's token for the source address.
    pub(super) names_source: bool,
    /// It is several commands, of which not all could be understood.
    pub(super) several: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Open,
    Close,
    Unknown,
}

/// Services that such commands name instead of a port, as of the IANA registry.
const SERVICES: [(&str, u16); 14] = [
    ("ssh", 22),
    ("openssh", 22),
    ("telnet", 23),
    ("smtp", 25),
    ("domain", 53),
    ("http", 80),
    ("https", 443),
    ("imaps", 993),
    ("openvpn", 1194),
    ("mysql", 3306),
    ("ms-wbt-server", 3389),
    ("postgresql", 5432),
    ("vnc-server", 5900),
    ("ftp", 21),
];

/// Reads a command line. Several commands joined by `;`, `&&` or `||` are taken together.
pub(super) fn read(text: &str) -> Command {
    let mut whole = Command {
        action: Action::Unknown,
        ports: BTreeSet::new(),
        guessed_protocol: false,
        names_source: text.contains("%IP%"),
        several: false,
    };
    let parts: Vec<&str> = text.split([';', '&', '|']).filter(|part| !part.trim().is_empty()).collect();
    for part in &parts {
        // Quotes, braces and commas separate words in rich rules and in nft sets.
        let words: Vec<String> = part
            .split(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '{' | '}' | '='))
            .filter(|word| !word.is_empty())
            .take(200)
            .map(str::to_ascii_lowercase)
            .collect();
        let action = action(&words);
        let found = ports(&words);
        if action == Action::Unknown || found.ports.is_empty() {
            whole.several |= parts.len() > 1;
        }
        // The first command that is understood decides: a pair of delete and add, in this order, refreshes a rule.
        if action == Action::Open || whole.action == Action::Unknown {
            whole.action = action;
        }
        if !found.ports.is_empty() {
            whole.guessed_protocol |= found.guessed;
            whole.ports.extend(found.ports);
        }
    }
    // More than a door can open: it would be a guess which ones matter.
    if whole.ports.len() > OPEN_PORTS_MAX {
        whole.ports.clear();
    }
    whole
}

fn action(words: &[String]) -> Action {
    let any = |wanted: &[&str]| words.iter().any(|word| wanted.contains(&word.as_str()));
    let program =
        words.iter().find(|word| !matches!(word.as_str(), "sudo" | "-n")).map_or("", String::as_str);
    let program = program.rsplit('/').next().unwrap_or_default();
    match program {
        // Words are in lower case here: -D, -A and -I.
        "iptables" | "ip6tables" | "iptables-nft" | "iptables-legacy" | "ip6tables-nft"
        | "ip6tables-legacy" => {
            if any(&["-d", "--delete"]) && !any(&["-a", "-i", "--append", "--insert"]) {
                Action::Close
            } else {
                Action::Open
            }
        }
        "nft" | "ufw" | "firewall-cmd" => {
            let removes = |word: &String| word.starts_with("--remove-") || word == "delete" || word == "deny";
            if words.iter().any(removes) { Action::Close } else { Action::Open }
        }
        "knock_add" | "knock_helper_ipt.sh" => {
            if any(&["-x", "--delete"]) {
                Action::Close
            } else {
                Action::Open
            }
        }
        _ => Action::Unknown,
    }
}

struct Found {
    ports: BTreeSet<Port>,
    guessed: bool,
}

fn ports(words: &[String]) -> Found {
    let mut protocols = BTreeSet::new();
    let mut numbers: Vec<u16> = Vec::new();
    let helper =
        words.iter().any(|word| word.ends_with("knock_add") || word.ends_with("knock_helper_ipt.sh"));
    let ufw = words.iter().any(|word| word == "ufw" || word.ends_with("/ufw"));
    for (index, word) in words.iter().enumerate() {
        let next = words.get(index + 1).map_or("", String::as_str);
        match word.as_str() {
            "-p" | "--protocol" | "--proto" | "proto" | "protocol" => protocols.extend(protocol(next)),
            "tcp" | "udp" if next == "dport" => protocols.extend(protocol(word)),
            "--dport"
            | "--dports"
            | "--destination-port"
            | "--destination-ports"
            | "dport"
            | "port"
            | "--dstport" => {
                let rest = words[index + 1..].iter();
                // An nft set lists its ports as words of their own: dport { 22, 80 }.
                for word in rest {
                    let listed = list(word);
                    let ends = !word.ends_with(',');
                    if listed.is_empty() {
                        break;
                    }
                    numbers.extend(listed);
                    if ends {
                        break;
                    }
                }
            }
            "-d" if helper => numbers.extend(list(next)),
            // firewall-cmd --add-port 22/tcp, ufw allow 22/tcp
            "--add-port" | "--remove-port" => add_written(next, &mut protocols, &mut numbers),
            "--add-service" | "--remove-service" => numbers.extend(list(next)),
            "allow" | "limit" if ufw && !matches!(next, "from" | "in" | "out" | "proto" | "to" | "log") => {
                add_written(next, &mut protocols, &mut numbers);
            }
            _ => {}
        }
    }
    // The helper's own default is tcp; so is what most commands mean that leave the protocol out.
    let guessed = protocols.is_empty() && !helper;
    if protocols.is_empty() {
        protocols.insert(Protocol::Tcp);
    }
    let ports = protocols
        .iter()
        .flat_map(|protocol| numbers.iter().filter_map(|number| Port::new(*protocol, *number).ok()));
    Found { ports: ports.collect(), guessed }
}

/// Such as `22/tcp` or `22`.
fn add_written(text: &str, protocols: &mut BTreeSet<Protocol>, numbers: &mut Vec<u16>) {
    let (number, name) = text.split_once('/').unwrap_or((text, ""));
    protocols.extend(protocol(name));
    numbers.extend(list(number));
}

fn protocol(name: &str) -> Option<Protocol> {
    match name {
        "tcp" | "6" => Some(Protocol::Tcp),
        "udp" | "17" => Some(Protocol::Udp),
        _ => None,
    }
}

/// Such as `22`, `22,80,443`, `1000:1010`, `1000-1010` or `ssh`; nothing when it is none of these.
fn list(text: &str) -> Vec<u16> {
    let mut numbers = Vec::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        if let Some((_, number)) = SERVICES.iter().find(|(name, _)| *name == part) {
            numbers.push(*number);
            continue;
        }
        let (first, last) = part.split_once([':', '-']).unwrap_or((part, part));
        let (Ok(first), Ok(last)) = (first.parse::<u16>(), last.parse::<u16>()) else {
            return Vec::new();
        };
        // One more than a door can open is enough to see that it is too many.
        numbers.extend((first..=last).take(OPEN_PORTS_MAX + 1));
    }
    numbers
}
