//! Real and odd knockd configurations, and what could not be carried over.

use proptest::prelude::*;

use super::*;
use crate::door::yaml;

/// As Debian's package installs it.
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

#[test]
fn debians_file_becomes_two_doors() {
    let import = import(DEBIAN, &ImportOptions::default()).unwrap();
    assert_eq!(
        import.notes.iter().map(ToString::to_string).collect::<Vec<_>>(),
        [
            "2: [options]: 'usesyslog' was left out: agents and controllers write their log to standard error",
            "4: [openSSH]: knockd leaves this open until something closes it; the door closes after 30s, and \
             established connections live on",
            "4: [openSSH]: the door is named 'openssh'",
            "10: [closeSSH]: left out: it closes what [openSSH] opens; openings end by themselves, and 'fleetknock \
             close' ends one sooner",
            "16: [openHTTPS]: knockd leaves this open until something closes it; the door closes after 30s, and \
             established connections live on",
            "16: [openHTTPS]: the door is named 'openhttps'",
        ]
    );
    assert_eq!(
        yaml::print(&import.doors[0], true),
        "apiVersion: fleetknock.io/v1
kind: Door
metadata:
  name: openssh
spec:
  knock:
    sequence:
    - port: tcp/7000
    - port: tcp/8000
    - port: tcp/9000
    within: 5s
  opens:
    hosts: {}
    ports:
    - tcp/22
    for: 30s
"
    );
    assert_eq!(
        summary(&import.doors[1]),
        "openhttps: tcp/12345 tcp/54321 tcp/24680 tcp/13579 in 5s opens tcp/443 for 30s"
    );
}

#[test]
fn the_manual_pages_open_and_close_pair_becomes_one_door() {
    let text = "[opencloseSMTP]
  Sequence      = 2222:udp, 3333:TCP ,4444
  Seq_Timeout   = 15
  TCPFlags      = fin,!ack
  Start_Command = /usr/sbin/iptables -A INPUT -s %IP% -p tcp --dport 25 -j ACCEPT
  Cmd_Timeout   = 5
  Stop_Command  = /usr/sbin/iptables -D INPUT -s %IP% -p tcp --dport 25 -j ACCEPT
";
    let import = import(text, &ImportOptions::default()).unwrap();
    assert_eq!(
        summary(&import.doors[0]),
        "opencloseSMTP".to_lowercase() + ": udp/2222 tcp/3333 tcp/4444 in 15s opens tcp/25 for 5s"
    );
    assert_eq!(
        import.notes.iter().map(ToString::to_string).collect::<Vec<_>>(),
        [
            "1: [opencloseSMTP]: the door is named 'openclosesmtp'",
            "4: [opencloseSMTP]: 'tcpflags' was left out: a knock is a SYN without ACK; clients that send other flags \
             no longer work",
        ]
    );
}

#[test]
fn opened_ports_are_recognised_in_the_usual_commands() {
    for (command, wanted) in [
        ("/sbin/iptables -I INPUT 1 -s %IP% -p tcp --dport 22 -j ACCEPT", "tcp/22"),
        ("iptables -A INPUT -s %IP% -p udp --dport=1194 -j ACCEPT", "udp/1194"),
        ("sudo iptables -w -A INPUT -s %IP% -p tcp -m tcp --destination-port ssh -j ACCEPT", "tcp/22"),
        (
            "iptables -A INPUT -s %IP% -p tcp -m multiport --dports 80,443,8000:8002 -j ACCEPT",
            "tcp/80 tcp/443 tcp/8000 tcp/8001 tcp/8002",
        ),
        ("iptables -A INPUT -s %IP% --dport 22 -j ACCEPT", "tcp/22"),
        (
            "iptables -A INPUT -s %IP% -p tcp --dport 22 -j ACCEPT; iptables -A INPUT -s %IP% -p udp --dport 53 -j ACCEPT",
            "tcp/22 udp/53",
        ),
        (
            "iptables -D INPUT -s %IP% -p tcp --dport 22 -j ACCEPT; iptables -A INPUT -s %IP% -p tcp --dport 22 -j ACCEPT",
            "tcp/22",
        ),
        ("/usr/sbin/nft add rule inet filter input ip saddr %IP% tcp dport 22 accept", "tcp/22"),
        ("nft insert rule inet filter input ip saddr %IP% tcp dport { 22, 443 } accept", "tcp/22 tcp/443"),
        ("nft add rule inet filter input ip saddr %IP% tcp dport {22,443} accept", "tcp/22 tcp/443"),
        ("ufw allow from %IP% to any port 22", "tcp/22"),
        ("ufw insert 1 allow from %IP% to any port 22 proto tcp", "tcp/22"),
        ("ufw allow proto udp from %IP% to any port 1194", "udp/1194"),
        ("ufw allow 22/tcp", "tcp/22"),
        (
            "firewall-cmd --add-rich-rule='rule family=\"ipv4\" source address=\"%IP%\" port port=\"22\" protocol=\"tcp\" accept'",
            "tcp/22",
        ),
        ("firewall-cmd --zone=public --add-port=8443/tcp", "tcp/8443"),
        ("/usr/local/sbin/knock_add -i -c INPUT -p tcp -d 443 -f %IP%", "tcp/443"),
        ("/usr/local/bin/open-up.sh %IP%", ""),
        ("iptables -A INPUT -s %IP% -j ACCEPT", ""),
        ("iptables -A INPUT -s %IP% -p tcp --dport 1:65535 -j ACCEPT", ""),
        ("iptables -A INPUT -s %IP% -p tcp --sport 22 -j ACCEPT", ""),
        ("nft add element inet filter allowed { %IP% }", ""),
    ] {
        let found: Vec<_> = command::read(command).ports.iter().map(ToString::to_string).collect();
        assert_eq!(found.join(" "), wanted, "{command}");
    }
}

#[test]
fn commands_that_take_back_are_recognised() {
    for (command, wanted) in [
        ("/sbin/iptables -D INPUT -s %IP% -p tcp --dport 22 -j ACCEPT", Action::Close),
        ("iptables --delete INPUT -s %IP% -p tcp --dport 22 -j ACCEPT", Action::Close),
        ("ufw delete allow from %IP% to any port 22", Action::Close),
        ("nft delete element inet filter allowed { %IP% }", Action::Close),
        ("firewall-cmd --remove-port=22/tcp", Action::Close),
        ("/usr/local/sbin/knock_add -x -p tcp -d 443 -f %IP%", Action::Close),
        ("/usr/local/sbin/knock_add -i -p tcp -d 443 -f %IP%", Action::Open),
        ("iptables -A INPUT -s %IP% -d 192.0.2.1 -p tcp --dport 22 -j ACCEPT", Action::Open),
        ("touch /tmp/x", Action::Unknown),
    ] {
        assert_eq!(command::read(command).action, wanted, "{command}");
    }
}

#[test]
fn what_cannot_be_told_is_left_out_and_said() {
    let section = |lines: &str| format!("[door]\n{lines}\n");
    for (lines, wanted) in [
        (
            "sequence = 1,2\ncommand = /opt/open %IP%",
            "3: [door]: left out: its command does not show which port it opens; say which to use for such sections",
        ),
        (
            "one_time_sequences = /etc/list\ncommand = iptables -A INPUT --dport 22",
            "2: [door]: left out: 'one_time_sequences' cannot be carried over; this version knows fixed sequences only",
        ),
        ("sequence = 1,2", "1: [door]: left out: it has no 'command', so it opens nothing"),
        (
            "sequence = 1,70000\ncommand = ufw allow 22/tcp",
            "2: [door]: left out: step 2 of its sequence is not a port from 1 to 65535",
        ),
        (
            "sequence = 1,2:sctp\ncommand = ufw allow 22/tcp",
            "2: [door]: left out: step 2 of its sequence is neither tcp nor udp",
        ),
        (
            "sequence =\ncommand = ufw allow 22/tcp",
            "2: [door]: left out: step 1 of its sequence is not a port from 1 to 65535",
        ),
    ] {
        let import = import(&section(lines), &ImportOptions::default()).unwrap();
        assert_eq!(import.doors, [], "{lines}");
        assert_eq!(import.notes.iter().map(ToString::to_string).collect::<Vec<_>>(), [wanted]);
    }
    let steps_and_port = section("sequence = 22,70\ncommand = ufw allow 22/tcp\nstop_command = x");
    let import = import(&steps_and_port, &ImportOptions::default()).unwrap();
    assert!(import.doors.is_empty());
    assert!(
        import.notes[0].text.contains("a step knocks at a port that this door opens"),
        "{:?}",
        import.notes
    );
}

#[test]
fn the_caller_fills_in_what_the_file_does_not_say() {
    let options = ImportOptions {
        hosts: HostSelector { names: ["gw-1".parse().unwrap()].into(), ..HostSelector::default() },
        default_port: Some("tcp/2222".parse().unwrap()),
        open_for: Duration::from_secs(90),
    };
    let import = import(
        "[a]\nsequence = 5000,70,900:udp\ncommand = /opt/open %IP%\nseq_timeout = 9999\ntarget = 192.0.2.1\n",
        &options,
    )
    .unwrap();
    assert_eq!(summary(&import.doors[0]), "a: tcp/5000 tcp/70 udp/900 in 5m opens tcp/2222 for 1m30s");
    assert_eq!(import.doors[0].opens().hosts.to_string(), "gw-1");
    let notes: Vec<_> = import.notes.iter().map(|note| (note.line, note.text.as_str())).collect();
    assert_eq!(
        notes,
        [
            (3, "its command does not show which port it opens; tcp/2222 was taken"),
            (4, "'seq_timeout = 9999' was changed to 300 s: a door takes 1 to 300 s"),
            (
                1,
                "knockd leaves this open until something closes it; the door closes after 1m30s, and established connections live on"
            ),
            (
                5,
                "'target' was left out: a knock counts at any address of its host; install an agent on the target, or name hosts in the door"
            ),
        ]
    );
}

#[test]
fn names_are_made_to_fit_and_kept_apart() {
    let body =
        "sequence = 1,3,2\nstart_command = ufw allow from %IP% to any port 22 proto tcp\nstop_command = x\n";
    let text = format!("[Open SSH]\n{body}[open-ssh]\n{body}[***]\n{body}");
    let import = import(&text, &ImportOptions::default()).unwrap();
    let names: Vec<_> = import.doors.iter().map(|door| door.name().to_string()).collect();
    assert_eq!(names, ["open-ssh", "open-ssh-2", "door"]);
}

#[test]
fn other_files_are_refused() {
    for (text, wanted) in [
        ("", ImportError::NoSequence),
        ("[options]\nUseSyslog\n", ImportError::NoSequence),
        ("apiVersion: fleetknock.io/v1\n", ImportError::Line { line: 1 }),
        ("[Unit]\nDescription=Some words\n", ImportError::NoSequence),
        ("[a]\nsome words without meaning\n", ImportError::Line { line: 2 }),
        ("#!/bin/sh\necho hello\n", ImportError::Line { line: 2 }),
    ] {
        assert_eq!(import(text, &ImportOptions::default()).unwrap_err(), wanted, "{text}");
    }
    assert_eq!(
        import(&" ".repeat(TEXT_MAX + 1), &ImportOptions::default()).unwrap_err(),
        ImportError::TooLarge
    );
    assert_eq!(
        import(&"[a]\n".repeat(SECTIONS_MAX + 1), &ImportOptions::default()).unwrap_err(),
        ImportError::TooLarge
    );
}

proptest! {
    #[test]
    fn any_text_is_imported_or_refused(text in "(\\[[a-zA-Z* ]{0,5}\\]\n)?((sequence|command|seq_timeout|stop_command|x)( = )[-a-z0-9,:;%{}=/ ]{0,40}\n){0,6}") {
        if let Ok(import) = import(&text, &ImportOptions::default()) {
            for door in import.doors {
                prop_assert_eq!(&yaml::parse(&yaml::print(&door, true)).unwrap()[0].door, &door);
            }
        }
    }

    #[test]
    fn any_bytes_are_imported_or_refused(text in any::<String>()) {
        let _ = import(&text, &ImportOptions::default());
        let _ = command::read(&text);
    }
}

fn summary(door: &Door) -> String {
    let Knock::Sequence(sequence) = door.knock();
    let steps: Vec<_> = sequence.steps.iter().map(|step| step.port.to_string()).collect();
    let ports: Vec<_> = door.opens().ports.iter().map(ToString::to_string).collect();
    format!(
        "{}: {} in {} opens {} for {}",
        door.name(),
        steps.join(" "),
        yaml::time_text(sequence.within),
        ports.join(" "),
        yaml::time_text(door.opens().duration)
    )
}
