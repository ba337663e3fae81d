//! Other firewalls on the host, missing permission, and what an opening costs.

use std::time::{Duration, Instant};

use fleetknock_agent::firewall::{FirewallError, Options};

use crate::{
    drivers::Driver,
    lab::{CLIENT, CLIENT6, Lab, OTHER, guard, opening, serve_tcp, shell},
};

pub(crate) fn an_accept_rule_lets_openings_through_default_deny(lab: &Lab) {
    serve_tcp(7000);
    let list: Box<dyn Fn() -> String> = if lab.driver == Driver::IptablesLegacy {
        for program in [lab.driver.iptables(), lab.driver.ip6tables()] {
            shell(program, "-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT");
            shell(program, "-A INPUT -p icmpv6 -j ACCEPT");
            shell(program, "-P INPUT DROP");
        }
        Box::new(|| shell("iptables-legacy", "-S") + &shell("ip6tables-legacy", "-S"))
    } else {
        shell("nft", "add table inet filter");
        shell("nft", "add chain inet filter input { type filter hook input priority 0 ; policy drop ; }");
        shell("nft", "add rule inet filter input ct state established,related accept");
        shell("nft", "add rule inet filter input meta l4proto icmpv6 accept");
        Box::new(|| shell("nft", "list table inet filter"))
    };
    let before = list();
    let mut firewall = lab.guarding(&["tcp/7000"]);
    firewall.open(&[opening(CLIENT, "tcp/7000", 60), opening(CLIENT6, "tcp/7000", 60)]).unwrap();
    lab.closed(CLIENT, "10.9.0.1:7000");
    assert_eq!(firewall.warnings().unwrap().len(), if lab.driver == Driver::IptablesLegacy { 2 } else { 1 });

    let chain = if lab.driver == Driver::IptablesLegacy { "INPUT" } else { "inet/filter/input" };
    let options = Options { accept_in: Some(chain.parse().unwrap()), ..Options::default() };
    let mut firewall = lab.driver.make(options);
    let wanted = guard(&["tcp/7000"], &[]);
    firewall.set_guard(&wanted).unwrap();
    firewall.set_guard(&wanted).unwrap();
    let with_rule = list();
    assert_eq!(
        with_rule.matches("fleetknock").count(),
        if lab.driver == Driver::IptablesLegacy { 2 } else { 1 }
    );
    lab.open(CLIENT, "10.9.0.1:7000");
    lab.open(CLIENT6, "[fd09::1]:7000");
    lab.closed(OTHER, "10.9.0.1:7000");
    assert_eq!(firewall.warnings().unwrap(), Vec::<String>::new());

    // A rule that was taken away comes back, as one.
    if lab.driver == Driver::IptablesLegacy {
        shell("iptables-legacy", "-D INPUT 1");
    } else {
        let listed = shell("nft", "-a list chain inet filter input");
        let handle =
            listed.lines().find(|line| line.contains("fleetknock")).unwrap().rsplit(' ').next().unwrap();
        shell("nft", &format!("delete rule inet filter input handle {handle}"));
    }
    lab.closed(CLIENT, "10.9.0.1:7000");
    firewall.set_guard(&wanted).unwrap();
    assert_eq!(list(), with_rule);
    lab.open(CLIENT, "10.9.0.1:7000");
    firewall.remove().unwrap();
    assert_eq!(list(), before);
}

pub(crate) fn default_deny_is_warned_of(lab: &Lab) {
    let mut firewall = lab.guarding(&["tcp/7000"]);
    assert_eq!(firewall.warnings().unwrap(), Vec::<String>::new());
    shell("nft", "add table inet firewalld");
    shell("nft", "add chain inet firewalld filter_INPUT { type filter hook input priority 10 ; }");
    shell("nft", "add rule inet firewalld filter_INPUT tcp dport 9 drop");
    assert_eq!(firewall.warnings().unwrap(), Vec::<String>::new());
    shell("nft", "add rule inet firewalld filter_INPUT counter reject with icmpx type admin-prohibited");
    let warnings = firewall.warnings().unwrap();
    assert!(
        matches!(&warnings[..], [one] if one.contains("--accept-in inet/firewalld/filter_INPUT")),
        "{warnings:?}"
    );
    shell("nft", "delete table inet firewalld");

    let iptables = lab.driver.iptables();
    shell(iptables, "-A INPUT -j REJECT");
    let warnings = firewall.warnings().unwrap();
    assert!(warnings.iter().any(|one| one.contains("--accept-in INPUT")), "{warnings:?}");
    shell(iptables, "-F INPUT");
    shell(iptables, "-P INPUT DROP");
    let warnings = firewall.warnings().unwrap();
    assert!(warnings.iter().any(|one| one.contains("--accept-in INPUT")), "{warnings:?}");
    let chain = "inet/filter/nowhere".parse().unwrap();
    let mut firewall = lab.driver.make(Options { accept_in: Some(chain), ..Options::default() });
    let error = firewall.set_guard(&guard(&["tcp/7000"], &[])).unwrap_err();
    assert!(matches!(error, FirewallError::Missing { .. }), "{error}");
}

/// Somebody changes `--firewall`, and the guard of the earlier driver stays in the kernel.
pub(crate) fn what_the_other_driver_left_is_warned_of(lab: &Lab) {
    serve_tcp(7000);
    let mut firewall = lab.guarding(&["tcp/7000"]);
    assert_eq!(firewall.warnings().unwrap(), Vec::<String>::new(), "one driver is no stranger to itself");
    let (other, left) = if lab.driver.is_nftables() {
        (Driver::IptablesNft, "nftables")
    } else {
        (Driver::Nftables, "iptables")
    };
    let mut after = other.make(Options::default());
    after.set_guard(&guard(&["tcp/7000"], &[])).unwrap();
    after.open(&[opening(CLIENT, "tcp/7000", 60)]).unwrap();
    lab.closed(CLIENT, "10.9.0.1:7000");
    let said = after.warnings().unwrap();
    assert!(said.iter().any(|one| one.contains(left) && one.contains("fleetknock-agent lift")), "{said:?}");
    firewall.remove().unwrap();
    let said = after.warnings().unwrap();
    assert!(!said.iter().any(|one| one.contains("fleetknock-agent lift")), "{said:?}");
    lab.open(CLIENT, "10.9.0.1:7000");
}

pub(crate) fn without_permission_it_says_so(lab: &Lab) {
    let mut firewall = lab.guarding(&["tcp/7000"]);
    caps::clear(None, caps::CapSet::Effective).unwrap();
    let refused = lab.driver.try_make(Options::default()).err();
    assert!(matches!(refused, Some(FirewallError::Permission)), "{refused:?}");
    let refused = firewall.open(&[opening(CLIENT, "tcp/7000", 60)]);
    assert!(matches!(refused, Err(FirewallError::Permission)), "{refused:?}");
    let refused = firewall.set_guard(&guard(&["tcp/7001"], &[]));
    assert!(matches!(refused, Err(FirewallError::Permission)), "{refused:?}");
}

/// Measured, not judged.
pub(crate) fn microseconds_per_opening(lab: &Lab) {
    let mut firewall = lab.guarding(&["tcp/7000"]);
    let mut measure = |present: usize| {
        let mut times: Vec<Duration> = (0..200)
            .map(|number| {
                let one = [opening(&format!("10.3.0.{}", 1 + number), "tcp/7000", 60)];
                let start = Instant::now();
                firewall.open(&one).unwrap();
                let time = start.elapsed();
                firewall.close(&one.map(|(element, _)| element)).unwrap();
                time
            })
            .collect();
        times.sort_unstable();
        println!(
            "{:?}: {:.1} µs per opening with {present} present",
            lab.driver,
            times[100].as_secs_f64() * 1e6
        );
        let many: Vec<_> = (0..1_000)
            .map(|number| opening(&format!("10.4.{}.{}", number / 200, 1 + number % 200), "tcp/7000", 600))
            .collect();
        let start = Instant::now();
        firewall.open(&many).unwrap();
        println!("{:?}: {:.1} µs each for 1,000 at once", lab.driver, start.elapsed().as_secs_f64() * 1e3);
    };
    measure(0);
    measure(1_000);
}
