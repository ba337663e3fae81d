//! What an operator chooses: the driver, the chain that lets openings through, the mark.

use std::{fmt, path::PathBuf, str::FromStr};

use super::{
    Firewall, FirewallError,
    dry_run::DryRun,
    iptables::{Iptables, Programs},
    nftables::Nftables,
};

/// Which driver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// `nftables` when the kernel has it, else `iptables`.
    #[default]
    Auto,
    /// An own nftables table, by netlink.
    Nftables,
    /// A chain placed by the program `iptables`, and ipsets by netlink.
    Iptables,
    /// Nothing is changed; what would be is logged.
    DryRun,
}

impl Kind {
    /// As operators write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
            Self::DryRun => "dry-run",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Kind {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        [Self::Auto, Self::Nftables, Self::Iptables, Self::DryRun]
            .into_iter()
            .find(|kind| kind.name() == text)
            .ok_or_else(|| SettingError::Kind { text: text.to_owned() })
    }
}

/// Which variant of the program iptables places the rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Variant {
    /// Whichever `iptables` is on this host.
    #[default]
    System,
    /// `iptables-nft`, whose rules live in nftables.
    Nft,
    /// `iptables-legacy`.
    Legacy,
}

impl FromStr for Variant {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        match text {
            "system" => Ok(Self::System),
            "nft" => Ok(Self::Nft),
            "legacy" => Ok(Self::Legacy),
            _ => Err(SettingError::Variant { text: text.to_owned() }),
        }
    }
}

/// The bit of a packet's mark that says: this packet came through an opening. Exactly one bit is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MarkBit(u32);

impl MarkBit {
    /// Outside the bits that kube-proxy (0x4000, 0x8000) and Tailscale (0x40000, 0x80000) set. Calico by default uses all
    /// of 0xffff0000; where it runs, choose a bit below.
    pub const DEFAULT: Self = Self(0x0010_0000);

    /// # Errors
    /// When not exactly one bit is set.
    pub fn new(bit: u32) -> Result<Self, SettingError> {
        if bit.is_power_of_two() { Ok(Self(bit)) } else { Err(SettingError::MarkBit { bit }) }
    }

    /// The mark with only this bit set.
    pub fn bit(self) -> u32 {
        self.0
    }
}

impl Default for MarkBit {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl fmt::Display for MarkBit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl FromStr for MarkBit {
    type Err = SettingError;

    /// Hexadecimal after `0x`, decimal otherwise.
    fn from_str(text: &str) -> Result<Self, SettingError> {
        let bit = match text.strip_prefix("0x") {
            Some(digits) => u32::from_str_radix(digits, 16),
            None => text.parse(),
        };
        Self::new(bit.map_err(|_| SettingError::Mark { text: text.to_owned() })?)
    }
}

/// Families of nftables tables that see TCP and UDP over IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4 and IPv6.
    Inet,
    /// IPv4.
    Ip,
    /// IPv6.
    Ip6,
}

impl Family {
    /// As nft writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Inet => "inet",
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
        }
    }
}

/// A chain of the operator's own default-deny firewall, at whose top one rule accepts what came through an opening.
///
/// Written `FAMILY/TABLE/CHAIN` for nftables, such as `inet/filter/input`, and `TABLE/CHAIN` or `CHAIN` for iptables, such
/// as `INPUT`. Only first packets of a connection are marked, so that chain must accept established connections itself,
/// as default-deny chains do. Published ports that are translated to a container are forwarded, not input: for them name
/// the chain in which they are dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AcceptIn {
    /// A chain of an nftables table.
    Nftables {
        /// The table's family.
        family: Family,
        /// The table's name.
        table: String,
        /// The chain's name.
        chain: String,
    },
    /// A chain of iptables and of ip6tables.
    Iptables {
        /// The table: `filter` or `mangle`.
        table: &'static str,
        /// The chain's name.
        chain: String,
    },
}

impl FromStr for AcceptIn {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        let refused = || SettingError::AcceptIn { text: text.to_owned() };
        let parts: Vec<&str> = text.split('/').collect();
        if !parts.iter().all(|part| is_chain_name(part)) {
            return Err(refused());
        }
        match parts[..] {
            [family, table, chain] => {
                let family = [Family::Inet, Family::Ip, Family::Ip6]
                    .into_iter()
                    .find(|known| known.name() == family)
                    .ok_or_else(refused)?;
                Ok(Self::Nftables { family, table: table.to_owned(), chain: chain.to_owned() })
            }
            [table, chain] => {
                let table =
                    ["filter", "mangle"].into_iter().find(|known| *known == table).ok_or_else(refused)?;
                Ok(Self::Iptables { table, chain: chain.to_owned() })
            }
            [chain] => Ok(Self::Iptables { table: "filter", chain: chain.to_owned() }),
            _ => Err(refused()),
        }
    }
}

impl fmt::Display for AcceptIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nftables { family, table, chain } => write!(f, "{}/{table}/{chain}", family.name()),
            Self::Iptables { table, chain } => write!(f, "{table}/{chain}"),
        }
    }
}

/// iptables takes chain names of up to 28 bytes; a leading dash would read as an option.
fn is_chain_name(text: &str) -> bool {
    (1..=28).contains(&text.len())
        && !text.starts_with('-')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
}

/// How a driver is to work.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Where one static rule accepts what came through an opening.
    pub accept_in: Option<AcceptIn>,
    /// The mark by which that rule knows it.
    pub mark: MarkBit,
    /// For the driver `iptables` and for an `accept_in` of iptables.
    pub variant: Variant,
}

/// The driver of this kind; nothing is changed in the kernel yet. Its netlink socket belongs to the network namespace of
/// the calling thread.
///
/// # Errors
/// When the kernel or the host lacks what the driver needs, or the agent may not change the firewall.
pub fn choose(kind: Kind, options: Options) -> Result<Box<dyn Firewall>, FirewallError> {
    match kind {
        Kind::Nftables => Ok(Box::new(Nftables::new(options)?)),
        Kind::Iptables => Ok(Box::new(Iptables::new(options)?)),
        Kind::DryRun => Ok(Box::new(DryRun::default())),
        Kind::Auto => match Nftables::new(options.clone()) {
            Ok(driver) => Ok(Box::new(driver)),
            Err(FirewallError::Permission) => Err(FirewallError::Permission),
            Err(without_nftables) => {
                tracing::info!(reason = %without_nftables, "the kernel has no nftables; using iptables");
                Ok(Box::new(Iptables::new(options)?))
            }
        },
    }
}

/// The files of the programs that this driver runs with these options; none when it speaks to the kernel only.
pub fn programs(driver: &dyn Firewall, options: &Options) -> Vec<PathBuf> {
    let runs = driver.name() == Kind::Iptables.name()
        || matches!(options.accept_in, Some(AcceptIn::Iptables { .. }))
            && driver.name() != Kind::DryRun.name();
    let programs = Programs::new(options.variant);
    [false, true].into_iter().filter(|_| runs).map(|six| programs.file(six).into()).collect()
}

/// Why a setting is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SettingError {
    /// No such driver.
    #[error("unknown firewall '{text}'; it must be auto, nftables, iptables or dry-run")]
    Kind {
        /// What was given.
        text: String,
    },
    /// No such variant of iptables.
    #[error("unknown variant '{text}' of iptables; it must be system, nft or legacy")]
    Variant {
        /// What was given.
        text: String,
    },
    /// Not a number.
    #[error("mark '{text}' is not a number; write one bit, such as 0x100000")]
    Mark {
        /// What was given.
        text: String,
    },
    /// Not exactly one bit.
    #[error("the mark {bit:#x} must have exactly one bit set, such as 0x100000")]
    MarkBit {
        /// What was given.
        bit: u32,
    },
    /// Not a chain.
    #[error(
        "accept-in '{text}' is not a chain; write FAMILY/TABLE/CHAIN for nftables, such as inet/filter/input, or CHAIN or \
         filter/CHAIN for iptables, such as INPUT"
    )]
    AcceptIn {
        /// What was given.
        text: String,
    },
}

#[cfg(test)]
mod tests;
