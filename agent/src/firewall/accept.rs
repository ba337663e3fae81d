//! The one rule that may be kept in an operator's own default-deny chain, whichever driver keeps guard.

use super::{
    FirewallError,
    iptables::{AcceptRules, Programs},
    kernel::Kernel,
    nftables::foreign::AcceptRule,
    settings::{AcceptIn, Options},
};

/// Keeps the rule, if the operator named a chain.
pub(super) struct Acceptor {
    chain: Option<AcceptIn>,
    rule: Rule,
}

enum Rule {
    None,
    Nftables(AcceptRule),
    Iptables(AcceptRules),
}

impl Acceptor {
    pub(super) fn new(options: &Options) -> Self {
        let chain = options.accept_in.clone();
        let rule = match chain.clone() {
            None => Rule::None,
            Some(AcceptIn::Nftables { family, table, chain }) => {
                Rule::Nftables(AcceptRule { family, table, chain, mark: options.mark })
            }
            Some(AcceptIn::Iptables { table, chain }) => {
                let programs = Programs::new(options.variant);
                Rule::Iptables(AcceptRules { programs, table, chain, mark: options.mark })
            }
        };
        Self { chain, rule }
    }

    /// The chain, if there is one.
    pub(super) fn chain(&self) -> Option<&AcceptIn> {
        self.chain.as_ref()
    }

    /// Places the rule when it is not there as it should be; says so.
    pub(super) fn mend(&self, kernel: &mut Kernel) -> Result<Option<String>, FirewallError> {
        match &self.rule {
            Rule::None => Ok(None),
            Rule::Nftables(rule) => rule.mend(kernel),
            Rule::Iptables(rules) => rules.mend(),
        }
    }

    /// Removes the rule, if it is there; says what was.
    pub(super) fn remove(&self, kernel: &mut Kernel) -> Result<Vec<String>, FirewallError> {
        let removed = match &self.rule {
            Rule::None => false,
            Rule::Nftables(rule) => rule.remove(kernel)?,
            Rule::Iptables(rules) => rules.remove()?,
        };
        let said = self.chain.as_ref().filter(|_| removed);
        Ok(said.map(|chain| format!("the rule that accepted openings in {chain}")).into_iter().collect())
    }
}
