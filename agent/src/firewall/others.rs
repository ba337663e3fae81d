//! What others' firewalls on this host would do to openings: found, and said with the remedy.
//!
//! A chain drops by default when its policy is drop or its last rule drops or rejects everything. Chains that it jumps
//! to are not followed.

use super::{
    FirewallError,
    kernel::{INET, IPV4, IPV6, Kernel},
    nftables::foreign::Foreign,
    settings::AcceptIn,
};

/// The tables that the legacy variant of iptables has in the calling thread's network namespace, and those of ip6tables.
const LEGACY_TABLES: [&str; 2] =
    ["/proc/thread-self/net/ip_tables_names", "/proc/thread-self/net/ip6_tables_names"];

/// That the other driver guarded here before, and nobody lifted that.
pub(super) fn other_driver(other: &str) -> String {
    format!(
        "the guard of the driver {other} is still on this host, so what this one opens stays closed there and doors that are \
         gone are guarded on: stop the agent, run 'fleetknock-agent lift', and start it again"
    )
}

/// One sentence for each chain in nftables, those of `iptables-nft` included, that would swallow openings.
pub(super) fn default_deny(
    kernel: &mut Kernel,
    accept_in: Option<&AcceptIn>,
    warnings: &mut Vec<String>,
) -> Result<(), FirewallError> {
    for foreign in Foreign::list(kernel)? {
        if accept_in.is_some_and(|accept_in| is_named(accept_in, &foreign))
            || !foreign.drops_by_default(kernel)?
        {
            continue;
        }
        let Foreign { table, chain, family, .. } = &foreign;
        let family = match *family {
            INET => "inet",
            IPV6 => "ip6",
            _ => "ip",
        };
        let remedy = if family != "inet" && table == "filter" && chain == "INPUT" {
            "INPUT".to_owned()
        } else {
            format!("{family}/{table}/{chain}")
        };
        warnings.push(format!(
            "the chain {family} {table} {chain} drops what it does not know, so openings have no effect there; let them through \
             with --accept-in {remedy}"
        ));
    }
    Ok(())
}

fn is_named(accept_in: &AcceptIn, foreign: &Foreign) -> bool {
    match accept_in {
        AcceptIn::Nftables { family, table, chain } => {
            let number = match family.name() {
                "inet" => INET,
                "ip" => IPV4,
                _ => IPV6,
            };
            number == foreign.family && *table == foreign.table && *chain == foreign.chain
        }
        AcceptIn::Iptables { table, chain } => {
            matches!(foreign.family, IPV4 | IPV6) && *table == foreign.table && *chain == foreign.chain
        }
    }
}

/// Names the tables of the legacy variant of iptables, which nftables does not list.
pub(super) fn legacy_tables(warnings: &mut Vec<String>) {
    let names = legacy_table_names();
    if names.iter().any(|name| name == "filter") {
        warnings.push(
            "the legacy variant of iptables has a filter table on this host; if iptables-legacy -S INPUT shows that it drops by \
             default, let openings through with --accept-in INPUT"
                .to_owned(),
        );
    }
}

/// The tables that the legacy variant of iptables has in use.
pub(super) fn legacy_table_names() -> Vec<String> {
    let mut names: Vec<String> = LEGACY_TABLES
        .iter()
        .filter_map(|path| std::fs::read_to_string(path).ok())
        .flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}
