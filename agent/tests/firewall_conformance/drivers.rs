//! The drivers under test, and how a person looks at what each keeps in the kernel and meddles with it.

use fleetknock_agent::firewall::{Firewall, Kind, Options, Variant, choose};

use crate::lab::shell;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Driver {
    Nftables,
    IptablesNft,
    IptablesLegacy,
}

impl Driver {
    pub(crate) fn make(self, options: Options) -> Box<dyn Firewall> {
        self.try_make(options).unwrap()
    }

    pub(crate) fn try_make(
        self,
        mut options: Options,
    ) -> Result<Box<dyn Firewall>, fleetknock_agent::firewall::FirewallError> {
        let (kind, variant) = match self {
            Self::Nftables => (Kind::Nftables, Variant::System),
            Self::IptablesNft => (Kind::Iptables, Variant::Nft),
            Self::IptablesLegacy => (Kind::Iptables, Variant::Legacy),
        };
        options.variant = variant;
        choose(kind, options)
    }

    pub(crate) fn is_nftables(self) -> bool {
        self == Self::Nftables
    }

    /// The program for IPv4 of this variant.
    pub(crate) fn iptables(self) -> &'static str {
        match self {
            Self::Nftables | Self::IptablesNft => "iptables-nft",
            Self::IptablesLegacy => "iptables-legacy",
        }
    }

    pub(crate) fn ip6tables(self) -> &'static str {
        match self {
            Self::Nftables | Self::IptablesNft => "ip6tables-nft",
            Self::IptablesLegacy => "ip6tables-legacy",
        }
    }

    /// How many elements one of our timed sets has: `open4`, `ban6`.
    pub(crate) fn count(self, set: &str) -> usize {
        if self.is_nftables() {
            shell("nft", &format!("list set inet fleetknock {set}")).matches("expires").count()
        } else {
            shell("ipset", &format!("save fk-{set}")).lines().filter(|line| line.starts_with("add")).count()
        }
    }

    /// Everything of ours in the calling thread's namespace, as programs list it.
    pub(crate) fn everything(self) -> String {
        if self.is_nftables() {
            let tables = shell("nft", "list tables");
            return if tables.contains("inet fleetknock") {
                shell("nft", "list table inet fleetknock")
            } else {
                String::new()
            };
        }
        let rules = [self.iptables(), self.ip6tables()].map(|program| shell(program, "-t mangle -S"));
        let rules: Vec<&str> =
            rules.iter().flat_map(|text| text.lines()).filter(|line| line.contains("FLEETKNOCK")).collect();
        let sets = shell("ipset", "save");
        let sets: Vec<&str> = sets.lines().filter(|line| line.contains(" fk-")).collect();
        [rules, sets].concat().join("\n")
    }

    /// What a person may do that takes something of ours away.
    pub(crate) fn flushes(self) -> &'static [&'static [&'static str]] {
        match self {
            Self::Nftables => &[
                &["nft flush ruleset"],
                &["nft delete table inet fleetknock"],
                &["nft flush table inet fleetknock"],
                &["nft flush chain inet fleetknock gate"],
                &["nft flush set inet fleetknock open4"],
                &["nft flush set inet fleetknock guard"],
                &["nft flush set inet fleetknock mgmt4"],
                &["nft flush set inet fleetknock observed"],
                &["nft flush chain inet fleetknock refuse"],
                &["nft flush set inet fleetknock ban6"],
                &["nft delete element inet fleetknock open6 { fd09::2 . tcp . 7000 }"],
                &["nft add table inet fleetknock { flags dormant ; }"],
                &["nft flush table inet fleetknock", "nft delete set inet fleetknock open4"],
            ],
            Self::IptablesNft => &[
                &["iptables-nft -t mangle -F"],
                &["ip6tables-nft -t mangle -F PREROUTING"],
                &["ip6tables-nft -t mangle -E FLEETKNOCK FLEETKNOCK-NEW"],
                &["nft flush ruleset"],
                &["iptables-nft -t mangle -D FLEETKNOCK 11"],
                &["iptables-nft -t mangle -D FLEETKNOCK 21"],
                &["iptables-nft -t mangle -F", "iptables-nft -t mangle -X"],
                &["ipset flush"],
                &["ipset flush fk-open6"],
                &["ipset del fk-open4 10.9.0.2,tcp:7000"],
                &["ipset flush fk-mgmt4"],
                &["ipset flush fk-observed-tcp"],
                &["nft flush ruleset", "ipset destroy"],
            ],
            Self::IptablesLegacy => &[
                &["iptables-legacy -t mangle -F"],
                &["ip6tables-legacy -t mangle -F PREROUTING"],
                &["iptables-legacy -t mangle -E FLEETKNOCK FLEETKNOCK-NEW"],
                &["iptables-legacy -t mangle -D FLEETKNOCK 11"],
                &["iptables-legacy -t mangle -F", "iptables-legacy -t mangle -X"],
                &["ipset flush"],
                &["ipset del fk-open4 10.9.0.2,tcp:7000"],
            ],
        }
    }

    /// What a person may do after which nothing is observed, or not counted.
    pub(crate) fn forgets_observed(self) -> &'static [&'static str] {
        match self {
            Self::Nftables => &[
                "nft flush ruleset",
                "nft flush set inet fleetknock observed",
                "nft flush chain inet fleetknock watch",
                "nft flush chain inet fleetknock notice",
                "nft flush chain inet fleetknock prerouting",
            ],
            Self::IptablesNft => {
                &["nft flush ruleset", "ipset flush fk-observed-tcp", "iptables-nft -t mangle -F FLEETKNOCK"]
            }
            Self::IptablesLegacy => {
                &["ipset flush", "ip6tables-legacy -t mangle -F", "iptables-legacy -t mangle -F FLEETKNOCK"]
            }
        }
    }

    /// What a person may do that adds something to what is ours.
    pub(crate) fn intrusions(self) -> &'static [&'static str] {
        match self {
            Self::Nftables => &[
                "nft insert rule inet fleetknock gate accept",
                "nft add rule inet fleetknock prerouting tcp dport 7001 accept",
                "nft add element inet fleetknock open4 { 10.9.0.3 . tcp . 7000 timeout 60s }",
                "nft add element inet fleetknock open4 { 10.9.0.3 . icmp . 7000 timeout 60s }",
                "nft add element inet fleetknock guard { tcp . 7005 }",
                "nft add element inet fleetknock mgmt4 { 10.9.0.3 }",
                "nft add element inet fleetknock observed { tcp . 7000 }",
                "nft add rule inet fleetknock notice drop",
                "nft insert rule inet fleetknock refuse accept",
                "nft add chain inet fleetknock extra { type filter hook input priority 0 ; }",
                "nft add set inet fleetknock extra { type ipv4_addr ; }",
                "nft add element inet fleetknock ban4 { 10.9.0.2 timeout 60s }",
            ],
            Self::IptablesNft => &[
                "iptables-nft -t mangle -I FLEETKNOCK -j RETURN",
                "ip6tables-nft -t mangle -A FLEETKNOCK -j ACCEPT",
                "iptables-nft -t mangle -N FLEETKNOCK-NEW",
                "ipset -exist add fk-open4 10.9.0.3,tcp:7000 timeout 60",
                "ipset -exist add fk-open4 10.9.0.3,tcp:7000 timeout 0",
                "ipset -exist add fk-open4 10.9.0.3,icmp:8/0",
                "ipset -exist add fk-guard-tcp 7005",
                "ipset -exist add fk-observed-tcp 7000",
                "ipset -exist add fk-mgmt4 10.9.0.3",
                "ipset -exist add fk-ban4 10.9.0.2 timeout 60",
            ],
            Self::IptablesLegacy => &[
                "iptables-legacy -t mangle -I FLEETKNOCK -j RETURN",
                "ip6tables-legacy -t mangle -A FLEETKNOCK -j ACCEPT",
                "iptables-legacy -t mangle -N FLEETKNOCK-NEW",
                "ipset -exist add fk-open4 10.9.0.3,tcp:7000 timeout 60",
                "ipset -exist add fk-ban4 10.9.0.2 timeout 60",
            ],
        }
    }
}
