//! Doors as the README writes them, knockd's own examples, identities and tokens.

use fleetknock_controller::{
    record::TokenId,
    trust::token::{Kind, RANDOM, Secret},
};

use super::{File, file};

const README: &str = r#"apiVersion: fleetknock.io/v1
kind: Door
metadata:
  name: bastion-ssh
spec:
  knock:
    sequence:                                               # 1 to 32 steps
      - {hosts: {matchLabels: {role: edge}}, port: tcp/7412}   # any host with this label
      - {hosts: {names: [db-1]}, port: udp/23981}              # exactly this host
      - {port: tcp/51003}                                      # any host of the fleet
    within: 15s                                             # from the first knock to the last
  sources: [0.0.0.0/0, "::/0"]                              # who may knock at all
  opens:
    hosts: {matchLabels: {role: bastion}}
    ports: [tcp/22]
    for: 30s                                                # for new connections; established ones live on
"#;
const BLOCKS: &str = "---
apiVersion: fleetknock.io/v1
kind: Door
metadata:
  name: web.internal
  labels:
    team: core
    example.org/tier: \"1\"
spec:
  mode: observe
  knock:
    sequence:
    - port: icmp/731
    - port: udp/53
      hosts:
        names:
        - db-1
        - db-2
    within: 1m30s
  opens:
    hosts: {}
    ports:
    - tcp/80
    - tcp/443
    - udp/443
    for: 24h
status:
  strengthBits: 45.5
---
apiVersion: fleetknock.io/v1
kind: Door
metadata: {name: second}
spec:
  knock: {sequence: [{port: tcp/1}], within: 1s}
  opens: {hosts: {}, ports: [tcp/65535], for: 1s}
";
const JSON: &str = r#"[{"apiVersion":"fleetknock.io/v1","kind":"Door","metadata":{"name":"a","labels":{"x":"y"}},"spec":
{"knock":{"sequence":[{"hosts":{"matchLabels":{"role":"edge"}},"port":"tcp/7412"}],"within":"15s"},"sources":["10.0.0.0/8"],
"opens":{"hosts":{"names":["db-1"]},"ports":["tcp/22","udp/1194"],"for":"30s"}}}]
"#;

pub(super) fn doors() -> Vec<File> {
    vec![
        file("readme", README),
        file("blocks", BLOCKS),
        file("json", JSON),
        file("almost-hidden-step", README.replace("tcp/51003", "(secret)")),
        file("almost-unknown-field", README.replace("within:", "witin:")),
        file("almost-no-such-port", README.replace("tcp/22", "tcp/65536")),
        file("almost-own-step", README.replace("tcp/51003", "tcp/22")),
        file("almost-two-of-a-name", [README, "---\n", README].concat()),
        file("almost-anchors", format!("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n---\n{README}")),
        file("almost-deep", format!("{}{}", "[".repeat(200), "]".repeat(200))),
        file("almost-tabs", README.replace("  ", "\t")),
        file("almost-fractions", README.replace("15s", "15s 500ms 3us").replace("30s", "30s 7ns")),
        file("almost-cut", &README[..README.len() / 2]),
        file("empty", ""),
    ]
}

/// As Debian's package installs it, and as the manual page shows.
const DEBIAN: &str = "[options]
\tUseSyslog

[openSSH]
\tsequence    = 7000,8000,9000
\tseq_timeout = 5
\tcommand     = /sbin/iptables -A INPUT -s %IP% -p tcp --dport 22 -j ACCEPT
\ttcpflags    = syn

[closeSSH]
\tsequence    = 9000,8000,7000
\tseq_timeout = 5
\tcommand     = /sbin/iptables -D INPUT -s %IP% -p tcp --dport 22 -j ACCEPT
\ttcpflags    = syn

[openHTTPS]
\tsequence    = 12345,54321,24680,13579
\tseq_timeout = 5
\tcommand     = /usr/local/sbin/knock_add -i -c INPUT -p tcp -d 443 -f %IP%
\ttcpflags    = syn
";
const MANUAL: &str = "# open and close in one\n[opencloseSMTP]
  Sequence      = 2222:udp, 3333:TCP ,4444
  Seq_Timeout   = 15
  TCPFlags      = fin,!ack
  Start_Command = /usr/sbin/iptables -A INPUT -s %IP% -p tcp --dport 25 -j ACCEPT
  Cmd_Timeout   = 5
  Stop_Command  = /usr/sbin/iptables -D INPUT -s %IP% -p tcp --dport 25 -j ACCEPT
";

pub(super) fn knockd() -> Vec<File> {
    let of_command = |name: &str, command: &str| {
        file(name, format!("[ssh]\nsequence = 7000,9000\ninterface = eth0\nstart_command = {command}\n"))
    };
    vec![
        file("debian", DEBIAN),
        file("manual", MANUAL),
        of_command(
            "multiport",
            "iptables -A INPUT -s %IP% -p tcp -m multiport --dports 80,443,8000:8002 -j ACCEPT",
        ),
        of_command("nft", "nft insert rule inet filter input ip saddr %IP% tcp dport { 22, 443 } accept"),
        of_command("ufw", "ufw allow from %IP% to any port 22 proto tcp"),
        of_command("firewall-cmd", "firewall-cmd --add-port=22/tcp; firewall-cmd --add-service=https"),
        of_command("script", "/etc/knockd/open.sh %IP%"),
        of_command("almost-everything", "iptables -A INPUT -p tcp --dports 1:65535 -j ACCEPT && true | cat"),
        file("one-time", "[a]\none_time_sequences = sequences.txt\ncommand = true\n"),
        file(
            "same-names",
            "[A b]\nsequence=1,2\ncommand=ufw allow 22\n[a-b]\nsequence=3,4\ncommand=ufw allow 23/udp\n",
        ),
        file("almost-numbers", DEBIAN.replace("seq_timeout = 5", "seq_timeout = 18446744073709551616")),
        file("almost-too-many-steps", DEBIAN.replace("7000,8000,9000", &vec!["7000"; 33].join(","))),
        file("almost-line", "[a]\nsequence\n"),
        file("almost-no-sequence", "[options]\nlogfile = /var/log/knockd.log\n"),
        file("almost-terminal", "[\x1b[2J]\nsequence = 1,2\n\x07\x1b = 3\ncommand = \x1b[2J\n"),
    ]
}

pub(super) fn identities() -> Vec<File> {
    vec![
        file("host", "fleetknock://default/host/edge-1"),
        file("controller", "fleetknock://default/controller/ctl-1"),
        file("user", "fleetknock://default/user/alice@example.org?role=admin"),
        file("other-fleet", "fleetknock://other/host/edge-1"),
        file("authority", "fleetknock://default/authority"),
        file("with-others", "spiffe://example.org/x\nfleetknock://default/host/edge-1\nhttps://example.org"),
        file("almost-two", "fleetknock://default/host/edge-1\nFLEETKNOCK://default/host/edge-2"),
        file("almost-slash", "fleetknock://default/host/edge-1/"),
        file("almost-upper", "fleetknock://Default/host/edge-1"),
        file("almost-escape", "fleetknock://default/host/edge%2d1"),
        file("almost-role", "fleetknock://default/user/alice?role=root"),
        file("almost-port", "fleetknock://default:7600/host/edge-1"),
        file("name", "alice_b+c@example.org"),
        file("longest", format!("fleetknock://{0}/host/{0}", vec!["a".repeat(63); 3].join("."))),
    ]
}

pub(super) fn tokens() -> Vec<File> {
    let random: [u8; RANDOM] = std::array::from_fn(|at| at.to_le_bytes()[0]);
    let minted =
        |kind| Secret::mint(kind, &TokenId::new(0x0123_4567_89ab_cdef), &random).0.reveal().to_owned();
    let (user, host) = (minted(Kind::User), minted(Kind::Host));
    vec![
        file("user", user.as_str()),
        file("host", host.as_str()),
        file("file", format!("{host}\n")),
        file("almost-mistyped", host.replacen("aaaq", "aaaa", 1)),
        file("almost-upper", user.to_ascii_uppercase()),
        file("almost-other-kind", host.replacen("fke", "fkt", 1)),
        file("almost-cut", &host[..40]),
        file(
            "almost-authorities",
            format!("{host}\n-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"),
        ),
        file("random", [random.as_slice(), &[30, b'z', 1, 2, 3]].concat()),
    ]
}
