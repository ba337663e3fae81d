//! The rules as they are placed and as the kernel lists them.

use super::*;

#[test]
fn a_default_deny_input_is_recognised() {
    for (lines, expected) in [
        (&["-P INPUT ACCEPT"][..], false),
        (&["-P INPUT DROP", "-A INPUT -i lo -j ACCEPT"], true),
        (&["-P INPUT ACCEPT", "-A INPUT -j REJECT --reject-with icmp-port-unreachable"], true),
        (&["-P INPUT ACCEPT", "-A INPUT -p tcp -j DROP"], false),
        (&["-P INPUT ACCEPT", "-A INPUT -j DROP", "-A INPUT -i lo -j ACCEPT"], false),
    ] {
        let lines: Vec<String> = lines.iter().map(|&line| line.to_owned()).collect();
        assert_eq!(denies(&lines), expected, "{lines:?}");
    }
}

#[test]
fn a_listing_says_what_is_wrong() {
    let wanted = ["-i lo -j RETURN".to_owned(), "-j DROP".to_owned()];
    let jumps = || JUMPS.map(|jump| format!("{jump} {CHAIN}")).to_vec();
    let listing = |ours: Option<Vec<&str>>, hook: Vec<String>| {
        let ours = ours.map(|rules| rules.into_iter().map(str::to_owned).collect());
        Listing { ours, fresh: None, hook }.wrong("iptables", &wanted).len()
    };
    assert_eq!(listing(Some(vec!["-i lo -j RETURN", "-j DROP"]), jumps()), 0);
    assert_eq!(listing(None, Vec::new()), 1);
    assert_eq!(listing(Some(vec!["-i lo -j RETURN", "-j DROP"]), Vec::new()), 1);
    assert_eq!(listing(Some(vec!["-j DROP", "-i lo -j RETURN"]), jumps()), 1);
    assert_eq!(listing(Some(vec!["-j ACCEPT", "-i lo -j RETURN", "-j DROP"]), jumps()), 1);
    assert_eq!(listing(Some(vec![]), Vec::new()), 2);
}
