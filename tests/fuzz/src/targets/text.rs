//! What people and other programs write as text: doors, a `knockd.conf`, identities, tokens.

use fleetknock_agent::certificate::token::TokenFile;
use fleetknock_controller::{
    record::{Holder, TokenId, TokenRecord},
    trust::token::{Kind, LENGTH, Presented, RANDOM, Secret},
};
use fleetknock_core::{
    door::{Door, yaml},
    host::HostSelector,
    identity::{self, Expected, FleetName, Identity, UserName},
    knockd::{self, ImportOptions},
    time::Timestamp,
};

use super::wire;

/// Keys and values of a door, and what YAML has that doors do not.
pub(super) const YAML_WORDS: &[&[u8]] = &[
    b"apiVersion: fleetknock.io/v1",
    b"kind: Door",
    b"metadata:",
    b"name:",
    b"labels:",
    b"spec:",
    b"knock:",
    b"sequence:",
    b"within:",
    b"sources:",
    b"opens:",
    b"ports:",
    b"hosts:",
    b"for:",
    b"mode: observe",
    b"matchLabels:",
    b"names:",
    b"status:",
    b"tcp/22",
    b"udp/53",
    b"icmp/0",
    b"tcp/65536",
    b"tcp/01",
    b"(secret)",
    b"1ms",
    b"1s 1us",
    b"1500ms",
    b"1day",
    b"5m",
    b"---\n",
    b"...\n",
    b"- ",
    b"{",
    b"}",
    b"[",
    b"]",
    b": ",
    b"&a ",
    b"*a",
    b"<<: *a",
    b"!!binary ",
    b"!t ",
    b"|\n",
    b">-\n",
    b"\"\\u0000\"",
    b"'",
    b"? ",
    b"~",
    b"null",
    b"0x10",
    b"1e9",
    b".inf",
    b"\t",
    b"\r\n",
    b"\xef\xbb\xbf",
    b"%YAML 1.2\n",
    b"0.0.0.0/0",
    b"'::/0'",
    b"[[[[[[[[[[[[[[[[",
    b"{a: {a: {a: {a: ",
];
/// Words of a knockd.conf and of the commands in it.
pub(super) const KNOCKD_WORDS: &[&[u8]] = &[
    b"[options]",
    b"[",
    b"]",
    b"=",
    b"sequence = ",
    b"one_time_sequences = ",
    b"seq_timeout = ",
    b"command = ",
    b"start_command = ",
    b"stop_command = ",
    b"cmd_timeout = ",
    b"tcpflags = syn",
    b"interface = eth0",
    b"target = ",
    b"7000,8000:udp,9000",
    b",",
    b":tcp",
    b":udp",
    b"iptables",
    b"ip6tables",
    b"-A INPUT",
    b"-D INPUT",
    b"-s %IP%",
    b"-p tcp",
    b"--dport 22",
    b"--dports 1:65535",
    b"-m multiport",
    b"-j ACCEPT",
    b"nft add rule",
    b"dport { 22, 443 }",
    b"accept",
    b"ufw allow",
    b"firewall-cmd --add-port=22/tcp",
    b"knock_add -i",
    b";",
    b"&&",
    b"|",
    b"#",
    b"%IP%",
    b"\n",
    b"\r\n",
    b"\x1b[2J",
    b"18446744073709551616",
];
/// Parts of identities and tokens.
pub(super) const NAME_WORDS: &[&[u8]] = &[
    b"fleetknock://",
    b"Fleetknock://",
    b"/host/",
    b"/controller/",
    b"/user/",
    b"?role=",
    b"admin",
    b"viewer",
    b"operator",
    b"/authority",
    b"default",
    b"edge-1",
    b"%2e",
    b"..",
    b"@",
    b"+",
    b"fkt_",
    b"fke_",
    b"_",
    b"0123456789abcdef",
    b"-----BEGIN CERTIFICATE-----",
    b"\n",
    b"=",
];
/// The longest that an error may be: it goes on one line of a log.
const MESSAGE_MAX: usize = 2_000;

pub(super) fn door_yaml(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let whole = yaml::parse(&text);
    let Ok(each) = yaml::parse_each(&text) else {
        assert!(whole.is_err());
        return message(&whole.err().map(|error| error.to_string()).unwrap_or_default());
    };
    assert_eq!(whole.is_ok(), each.iter().all(Result::is_ok));
    // In YAML a carriage return breaks a line by itself, too (YAML 1.2.2 section 5.4).
    let lines = text.matches(['\n', '\r']).count() + 1;
    for document in each {
        match document {
            Ok(document) => {
                assert!((1..=lines).contains(&document.line), "a door in line {}", document.line);
                written(&document.door);
            }
            Err(error) => {
                assert!((1..=lines).contains(&error.line), "an error in line {} of {lines}", error.line);
                message(&error.to_string());
            }
        }
    }
}

/// What is written of a door reads as that door, or not at all without its steps.
fn written(door: &Door) {
    let read = yaml::parse(&yaml::print(door, true));
    let doors = read.map(|documents| documents.into_iter().map(|document| document.door).collect::<Vec<_>>());
    assert_eq!(doors.as_deref(), Ok(std::slice::from_ref(door)), "a door changes when it is written");
    assert!(yaml::parse(&yaml::print(door, false)).is_err(), "a door without its steps is a door");
    wire::there_and_back(door);
}

fn message(text: &str) {
    assert!(!text.contains(char::is_control), "a message could steer a terminal: {text:?}");
    assert!(text.len() <= MESSAGE_MAX, "a message of {} bytes", text.len());
}

pub(super) fn knockd_conf(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let named = ImportOptions {
        hosts: HostSelector {
            names: ["db-1".parse().ok()].into_iter().flatten().collect(),
            ..HostSelector::default()
        },
        default_port: "tcp/22".parse().ok(),
        ..ImportOptions::default()
    };
    for options in [ImportOptions::default(), named] {
        let import = match knockd::import(&text, &options) {
            Ok(import) => import,
            Err(error) => return message(&error.to_string()),
        };
        let mut names: Vec<_> = import.doors.iter().map(|door| door.name().clone()).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), import.doors.len(), "two doors of one name");
        assert!(import.doors.len() <= knockd::SECTIONS_MAX);
        import.doors.iter().for_each(written);
        import.notes.iter().for_each(|note| message(&note.to_string()));
    }
}

pub(super) fn identity(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let uris: Vec<&str> = text.split('\n').take(8).collect();
    for uri in &uris {
        match uri.parse::<Identity>() {
            Ok(read) => {
                assert_eq!(read.to_string(), *uri, "two spellings of one identity");
                assert!(uri.len() <= identity::TEXT_MAX);
                assert_eq!(Identity::among(&[uri]), Ok(read.clone()));
                assert!(identity::authority_fleet(&[uri]).is_none(), "an authority that speaks for somebody");
                let other = FleetName::default();
                assert_eq!(Identity::of_fleet(&other, &[uri]).is_ok(), read.fleet == other);
            }
            Err(error) => assert!(error.to_string().len() <= MESSAGE_MAX),
        }
        if let Ok(name) = uri.parse::<UserName>() {
            assert!(name.as_str() == *uri && uri.len() <= 64);
        }
        if let Some(fleet) = identity::authority_fleet(&[uri]) {
            assert_eq!(identity::authority_uri(&fleet), *uri, "two spellings of one authority");
        }
    }
    // Of several URIs that look like ours none is chosen.
    let ours = |uri: &&&str| uri.get(..11).is_some_and(|begin| begin.eq_ignore_ascii_case("fleetknock:"));
    if Expected::Anybody.among(&FleetName::default(), &uris).is_ok() {
        assert_eq!(uris.iter().filter(ours).count(), 1, "one of several identities was chosen");
    }
}

pub(super) fn token(input: &[u8]) {
    if let Ok(shown) = Presented::parse(input) {
        assert_eq!(input.len(), LENGTH);
        assert_eq!(input.get(4..20), Some(shown.id().as_str().as_bytes()));
        assert!(!input.iter().any(u8::is_ascii_uppercase), "two spellings of one token");
    }
    if let Ok(file) = TokenFile::parse(&String::from_utf8_lossy(input)) {
        assert!(!file.token.is_empty() && !file.token.contains(char::is_whitespace));
    }
    minted(input);
}

/// A token of these random bytes is good, and with any other byte in its place it is not.
fn minted(input: &[u8]) {
    let Some((random, rest)) = input.split_first_chunk::<RANDOM>() else { return };
    let [at, change, ..] = rest else { return };
    let id = TokenId::new(u64::from(*change) << 32 | u64::from(*at));
    let (secret, hash) = Secret::mint(Kind::Host, &id, random);
    let Ok(host) = "edge-1".parse() else { return };
    let ends = Timestamp::from_millis(2);
    let record = TokenRecord {
        id,
        holder: Holder::Host(host),
        hash,
        created: Timestamp::ZERO,
        expires: ends,
        created_by: String::new(),
    };
    let text = secret.reveal().as_bytes();
    assert_eq!(text.len(), LENGTH);
    let is_good = |text: &[u8], now| {
        Presented::parse(text).is_ok_and(|shown| shown.judge(Kind::Host, Some(&record), now).is_ok())
    };
    assert!(is_good(text, Timestamp::ZERO), "a good token is refused");
    assert!(!is_good(text, ends), "a token outlives its end");
    let mut other = text.to_vec();
    if let Some(byte) = other.get_mut(usize::from(*at) % LENGTH)
        && byte != change
    {
        *byte = *change;
        assert!(!is_good(&other, Timestamp::ZERO), "a changed token is good");
    }
}
