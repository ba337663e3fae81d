//! Chains that are not ours: which of them drop by default, and the one rule that we may keep in one of them.

use super::{
    super::{
        FirewallError,
        kernel::{INET, IPV4, IPV6, Kernel, NFTABLES, Request, UNSPECIFIED, attributes::Reader},
        settings::{Family, MarkBit},
    },
    TABLE, expressions,
    layout::{self, GET_CHAIN},
};

/// By which our rule in another's chain is known: a comment as nft writes it (`NFTNL_UDATA_RULE_COMMENT`, length, text).
const COMMENT: &[u8] = b"\x00\x0bfleetknock\x00";
/// `NF_DROP` as a policy.
const POLICY_DROP: u32 = 0;

/// A base chain that every packet to this host goes through.
pub(in super::super) struct Foreign {
    pub(in super::super) family: u8,
    pub(in super::super) table: String,
    pub(in super::super) chain: String,
    policy_drops: bool,
}

impl Foreign {
    /// All of them but ours.
    pub(in super::super) fn list(kernel: &mut Kernel) -> Result<Vec<Self>, FirewallError> {
        let request = Request::new(NFTABLES, GET_CHAIN, UNSPECIFIED, Vec::new());
        Ok(kernel.dump("list the chains", &request, Self::read)?.unwrap_or_default())
    }

    fn read(family: u8, reader: Reader<'_>) -> Option<Self> {
        let hook = reader.nest(layout::CHAIN_HOOK)?.number32(layout::HOOK_NUMBER)?;
        let table = reader.text(layout::CHAIN_TABLE)?;
        let sees_input =
            matches!(hook, layout::PREROUTING | layout::INPUT) && matches!(family, INET | IPV4 | IPV6);
        let ours = family == INET && table == TABLE;
        (sees_input && !ours).then(|| Self {
            family,
            table: table.to_owned(),
            chain: reader.text(layout::CHAIN_NAME).unwrap_or_default().to_owned(),
            policy_drops: reader.number32(layout::CHAIN_POLICY) == Some(POLICY_DROP),
        })
    }

    /// Whether what no rule of this chain accepts is dropped: by its policy or by its last rule.
    pub(in super::super) fn drops_by_default(&self, kernel: &mut Kernel) -> Result<bool, FirewallError> {
        if self.policy_drops {
            return Ok(true);
        }
        let request = layout::list_rules(self.family, &self.table, &self.chain);
        let rules = kernel.dump("list the rules", &request, |family, reader| {
            let here = family == self.family
                && reader.text(layout::RULE_TABLE) == Some(&self.table)
                && reader.text(layout::RULE_CHAIN) == Some(&self.chain);
            here.then(|| reader.nest(layout::RULE_EXPRESSIONS).is_some_and(expressions::drop_everything))
        })?;
        Ok(rules.unwrap_or_default().last().copied().unwrap_or(false))
    }
}

/// Our rule in an operator's chain: it accepts what carries the mark.
#[derive(Clone, Debug)]
pub(in super::super) struct AcceptRule {
    pub(in super::super) family: Family,
    pub(in super::super) table: String,
    pub(in super::super) chain: String,
    pub(in super::super) mark: MarkBit,
}

impl AcceptRule {
    /// Places the rule when it is not there as it should be, once; says so.
    pub(in super::super) fn mend(&self, kernel: &mut Kernel) -> Result<Option<String>, FirewallError> {
        let found = self.find(kernel)?;
        if matches!(found[..], [(_, true)]) {
            return Ok(None);
        }
        let family = self.family_number();
        let mut requests: Vec<Request> = self.deletions(&found).collect();
        // Without NLM_F_APPEND a rule goes to the top.
        let rule = layout::accept_marked(self.mark);
        requests.push(layout::new_rule(family, &self.table, &self.chain, &rule, Some(COMMENT)));
        kernel.batch_raw(&requests).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => FirewallError::Missing {
                what: format!("the chain {} {} {}", self.family.name(), self.table, self.chain),
                remedy: "name an existing chain with --accept-in, or none".to_owned(),
            },
            _ => super::super::kernel::refused("accept openings in the chain of accept-in", error),
        })?;
        Ok(Some(format!(
            "the rule that accepts openings in {} {} {} was missing and has been put back",
            self.family.name(),
            self.table,
            self.chain
        )))
    }

    /// Removes the rule; says whether it was there.
    pub(in super::super) fn remove(&self, kernel: &mut Kernel) -> Result<bool, FirewallError> {
        let found = self.find(kernel)?;
        let requests: Vec<Request> = self.deletions(&found).collect();
        kernel.batch("remove the rule that accepts openings", &requests)?;
        Ok(!requests.is_empty())
    }

    fn deletions(&self, found: &[(u64, bool)]) -> impl Iterator<Item = Request> {
        let family = self.family_number();
        found.iter().map(move |(handle, _)| layout::delete_rule(family, &self.table, &self.chain, *handle))
    }

    /// The handles of the rules with our comment, and whether each is as it should be.
    fn find(&self, kernel: &mut Kernel) -> Result<Vec<(u64, bool)>, FirewallError> {
        let rule = layout::accept_marked(self.mark);
        let request = layout::list_rules(self.family_number(), &self.table, &self.chain);
        let found = kernel.dump("list the rules", &request, |_, reader| {
            let here = reader.text(layout::RULE_TABLE) == Some(&self.table)
                && reader.text(layout::RULE_CHAIN) == Some(&self.chain)
                && reader.bytes(layout::RULE_USERDATA) == Some(COMMENT);
            let handle = reader.number64(layout::RULE_HANDLE).filter(|_| here)?;
            Some((handle, layout::is_listed(&rule, reader)))
        })?;
        Ok(found.unwrap_or_default())
    }

    fn family_number(&self) -> u8 {
        match self.family {
            Family::Inet => INET,
            Family::Ip => IPV4,
            Family::Ip6 => IPV6,
        }
    }
}
