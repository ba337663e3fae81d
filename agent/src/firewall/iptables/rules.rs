//! Our chain of iptables and ip6tables, and the one rule that we may keep in an operator's chain.
//!
//! Rules are written as `iptables -S` lists them, so that a listing can be compared with what was asked for. Should a
//! version of the program list them otherwise, what it lists after we made the chain is taken for right.

use super::{
    super::{
        FirewallError,
        settings::{AcceptIn, MarkBit},
    },
    ipset::Set,
    others,
    programs::Programs,
};

pub(super) const TABLE: &str = "mangle";
const HOOK: &str = "PREROUTING";
const CHAIN: &str = "FLEETKNOCK";
/// Under which the chain is built before it takes the other's place.
const FRESH: &str = "FLEETKNOCK-NEW";
const JUMPS: [&str; 2] = ["-p tcp -j", "-p udp -j"];

/// The sets of one protocol's ports.
struct Sets {
    protocol: &'static str,
    guard: Set,
    observed: Set,
    dropped: Set,
    noticed: Set,
}

const PROTOCOLS: [Sets; 2] = [
    Sets {
        protocol: "tcp",
        guard: Set::GuardTcp,
        observed: Set::ObservedTcp,
        dropped: Set::DroppedTcp,
        noticed: Set::NoticedTcp,
    },
    Sets {
        protocol: "udp",
        guard: Set::GuardUdp,
        observed: Set::ObservedUdp,
        dropped: Set::DroppedUdp,
        noticed: Set::NoticedUdp,
    },
];

/// Our chain for one address family.
pub(super) struct Chain {
    programs: Programs,
    six: bool,
    mark: MarkBit,
    /// How the program lists our rules, when it does so in words of its own.
    learned: Option<Vec<String>>,
}

impl Chain {
    pub(super) fn new(programs: Programs, six: bool, mark: MarkBit) -> Self {
        Self { programs, six, mark, learned: None }
    }

    fn rules(&self) -> Vec<String> {
        let set = |four: Set, six: Set| if self.six { six.name() } else { four.name() };
        let open = set(Set::Open4, Set::Open6);
        // For IPv6 the type UNICAST includes this host's own addresses (xt_addrtype.c).
        let transit = if self.six {
            "-m addrtype --dst-type UNICAST -m addrtype ! --dst-type LOCAL,ANYCAST -j RETURN"
        } else {
            "-m addrtype --dst-type UNICAST -j RETURN"
        };
        let mark = self.mark.bit();
        let (ban, cut) = (set(Set::Ban4, Set::Ban6), set(Set::Cut4, Set::Cut6));
        let opened = format!("-m set ! --match-set {ban} src -m set --match-set {open} src,dst");
        let mut rules = vec!["-i lo -j RETURN".to_owned()];
        rules.extend(PROTOCOLS.iter().map(|Sets { protocol, guard, observed, .. }| {
            let (guard, observed) = (guard.name(), observed.name());
            format!(
                "-p {protocol} -m set ! --match-set {guard} dst -m set ! --match-set {observed} dst -j RETURN"
            )
        }));
        rules.push(transit.to_owned());
        rules.extend(PROTOCOLS.iter().map(|Sets { protocol, guard, .. }| {
            let guard = guard.name();
            format!("-p {protocol} -m set --match-set {guard} dst -m set --match-set {cut} src,src -j DROP")
        }));
        rules.extend([
            "-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN".to_owned(),
            format!("-m set --match-set {} src -j RETURN", set(Set::Management4, Set::Management6)),
            format!("{opened} -j MARK --set-xmark {mark:#x}/{mark:#x}"),
            format!("{opened} -j RETURN"),
        ]);
        // A look into a set that counts counts; what is not in it yet is added, and so is counted as the first.
        for Sets { protocol, guard, noticed, .. } in &PROTOCOLS {
            let observed = format!("-p {protocol} -m set ! --match-set {} dst", guard.name());
            let noticed = noticed.name();
            rules.extend([
                format!("{observed} -m set --match-set {noticed} dst -j RETURN"),
                format!("{observed} -j SET --add-set {noticed} dst"),
                format!("{observed} -j RETURN"),
            ]);
        }
        for Sets { protocol, dropped, .. } in &PROTOCOLS {
            let dropped = dropped.name();
            rules.extend([
                format!("-p {protocol} -m set --match-set {dropped} dst -j DROP"),
                format!("-p {protocol} -j SET --add-set {dropped} dst"),
            ]);
        }
        rules.push("-j DROP".to_owned());
        rules
    }

    /// Makes the chain and the jumps to it as they should be, when they are not; says what was wrong. The ports stay
    /// guarded: a chain is built beside, jumped to, and only then the old one goes.
    pub(super) fn mend(&mut self) -> Result<Vec<String>, FirewallError> {
        let mut said = Vec::new();
        let program = self.programs.name(self.six);
        let mut listed = Listing::read(self.programs, self.six)?;
        if listed.fresh.is_some() {
            self.finish_swap(&listed)?;
            listed = Listing::read(self.programs, self.six)?;
            said.push(format!(
                "a change of the guard's chain of {program} had been interrupted and is finished"
            ));
        }
        let wanted = self.rules();
        let accepted = self.learned.as_ref().unwrap_or(&wanted);
        let wrong = listed.wrong(program, accepted);
        if !wrong.is_empty() {
            self.make(&listed, wanted.clone())?;
            let made = Listing::read(self.programs, self.six)?.ours.unwrap_or_default();
            self.learned = (made != wanted).then_some(made);
            said.extend(wrong);
        }
        Ok(said)
    }

    /// A swap that was interrupted: whichever chain is in force stays so until the other is.
    fn finish_swap(&self, listed: &Listing) -> Result<(), FirewallError> {
        let (has_chain, jumps) = (listed.ours.is_some(), listed.jumps_to(FRESH));
        let present = listed.jumps_to(CHAIN);
        self.run("finish a change of its chain", move |program| {
            if has_chain {
                for jump in JUMPS.map(|jump| format!("{jump} {CHAIN}")) {
                    if !present.contains(&jump) {
                        program.insert(TABLE, HOOK, &jump, 1)?;
                    }
                }
                for jump in &jumps {
                    program.delete(TABLE, HOOK, jump)?;
                }
                program.flush_chain(TABLE, FRESH)?;
                program.delete_chain(TABLE, FRESH)
            } else {
                program.rename_chain(TABLE, FRESH, CHAIN)
            }
        })
    }

    fn make(&self, listed: &Listing, rules: Vec<String>) -> Result<(), FirewallError> {
        let (has_chain, jumps) = (listed.ours.is_some(), listed.jumps_to(CHAIN));
        self.run("place the guard's chain", move |program| {
            program.new_chain(TABLE, FRESH)?;
            for rule in &rules {
                program.append(TABLE, FRESH, rule)?;
            }
            for jump in JUMPS.iter().rev() {
                program.insert(TABLE, HOOK, &format!("{jump} {FRESH}"), 1)?;
            }
            for jump in &jumps {
                program.delete(TABLE, HOOK, jump)?;
            }
            if has_chain {
                program.flush_chain(TABLE, CHAIN)?;
                program.delete_chain(TABLE, CHAIN)?;
            }
            program.rename_chain(TABLE, FRESH, CHAIN)
        })
    }

    /// Removes chain and jumps; says what was there.
    pub(super) fn remove(&mut self) -> Result<Vec<String>, FirewallError> {
        let listed = Listing::read(self.programs, self.six)?;
        let program = self.programs.name(self.six);
        let mut said = Vec::new();
        for (chain, present) in [(CHAIN, listed.ours.is_some()), (FRESH, listed.fresh.is_some())] {
            let jumps = listed.jumps_to(chain);
            self.run("remove the guard's chain", move |program| {
                for jump in &jumps {
                    program.delete(TABLE, HOOK, jump)?;
                }
                if present {
                    program.flush_chain(TABLE, chain)?;
                    program.delete_chain(TABLE, chain)?;
                }
                Ok(())
            })?;
            said.extend(present.then(|| format!("the chain {chain} of {program} in the table {TABLE}")));
        }
        Ok(said)
    }

    fn run(
        &self,
        action: &'static str,
        call: impl FnOnce(&iptables::IPTables) -> Result<(), Box<dyn std::error::Error>> + Send + 'static,
    ) -> Result<(), FirewallError> {
        self.programs.run(self.six, action, call)
    }
}

/// What is listed of the table in which we work.
struct Listing {
    /// The rules of our chain, if it is there.
    ours: Option<Vec<String>>,
    /// The same of the chain that is to replace it.
    fresh: Option<Vec<String>>,
    /// The rules of the hook's chain.
    hook: Vec<String>,
}

impl Listing {
    fn read(programs: Programs, six: bool) -> Result<Self, FirewallError> {
        let lines = programs.list(six, TABLE, None)?;
        let rules = |chain: &str| -> Vec<String> {
            let start = format!("-A {chain} ");
            lines.iter().filter_map(|line| line.strip_prefix(&start)).map(str::to_owned).collect()
        };
        let present = |chain: &str| lines.iter().any(|line| *line == format!("-N {chain}"));
        Ok(Self {
            ours: present(CHAIN).then(|| rules(CHAIN)),
            fresh: present(FRESH).then(|| rules(FRESH)),
            hook: rules(HOOK),
        })
    }

    /// The jumps to this chain as we write them, each as often as it is there.
    fn jumps_to(&self, chain: &str) -> Vec<String> {
        let ours = JUMPS.map(|jump| format!("{jump} {chain}"));
        self.hook.iter().filter(|rule| ours.contains(rule)).cloned().collect()
    }

    fn wrong(&self, program: &str, wanted: &[String]) -> Vec<String> {
        let mut said = Vec::new();
        let mut jumps = self.jumps_to(CHAIN);
        jumps.sort_unstable();
        match &self.ours {
            None => said.push(format!("the guard's chain of {program} was missing and has been put back")),
            Some(rules) => {
                let foreign = rules.iter().filter(|rule| !wanted.contains(rule)).count();
                let missing = wanted.iter().filter(|rule| !rules.contains(rule)).count();
                if foreign == 1 {
                    said.push(format!(
                        "a rule that is not ours was found in our chain of {program} and removed"
                    ));
                } else if foreign > 1 {
                    said.push(format!(
                        "{foreign} rules that are not ours were found in our chain of {program} and removed"
                    ));
                }
                if missing > 0 {
                    let were = if missing == 1 { "rule was" } else { "rules were" };
                    said.push(format!("{missing} of the guard's {were} missing from {program} and put back"));
                }
                if said.is_empty() && rules != wanted {
                    said.push(format!(
                        "the guard's rules of {program} were out of order and have been put back"
                    ));
                }
                if jumps != JUMPS.map(|jump| format!("{jump} {CHAIN}")) {
                    said.push(format!(
                        "the jump to the guard's chain of {program} was missing and has been put back"
                    ));
                }
            }
        }
        said
    }
}

/// Our rules in an operator's chain of iptables and of ip6tables: they accept what carries the mark.
pub(in super::super) struct AcceptRules {
    pub(in super::super) programs: Programs,
    pub(in super::super) table: &'static str,
    pub(in super::super) chain: String,
    pub(in super::super) mark: MarkBit,
}

/// How such a rule begins and ends; between the two is the mark.
const ACCEPT_START: &str = "-m mark --mark ";
const ACCEPT_END: &str = " -m comment --comment fleetknock -j ACCEPT";

impl AcceptRules {
    /// Places the rules when they are not there as they should be, once each; says so.
    pub(in super::super) fn mend(&self) -> Result<Option<String>, FirewallError> {
        let mark = self.mark.bit();
        let wanted = format!("{ACCEPT_START}{mark:#x}/{mark:#x}{ACCEPT_END}");
        let mut mended = false;
        for six in [false, true] {
            let found = self.find(six)?;
            if found == [wanted.as_str()] {
                continue;
            }
            mended = true;
            let (table, chain, wanted) = (self.table, self.chain.clone(), wanted.clone());
            self.programs.run(six, "accept openings in the chain of accept-in", move |program| {
                program.insert(table, &chain, &wanted, 1)?;
                // The one at the top is new: of equal ones the first is deleted, and one stays.
                found.iter().try_for_each(|rule| program.delete(table, &chain, rule))
            })?;
        }
        let chain = &self.chain;
        Ok(mended
            .then(|| format!("the rule that accepts openings in {chain} was missing and has been put back")))
    }

    /// Removes the rules; says whether one was there.
    pub(in super::super) fn remove(&self) -> Result<bool, FirewallError> {
        let mut removed = false;
        for six in [false, true] {
            let found = match self.find(six) {
                // The operator's chain is gone, and our rule with it.
                Err(FirewallError::Missing { .. }) => continue,
                found => found?,
            };
            removed |= !found.is_empty();
            let (table, chain) = (self.table, self.chain.clone());
            self.programs.run(six, "remove the rule that accepts openings", move |program| {
                found.iter().try_for_each(|rule| program.delete(table, &chain, rule))
            })?;
        }
        Ok(removed)
    }

    fn find(&self, six: bool) -> Result<Vec<String>, FirewallError> {
        let lines = self.programs.list(six, self.table, None)?;
        let chain = &self.chain;
        if !lines
            .iter()
            .any(|line| *line == format!("-N {chain}") || line.starts_with(&format!("-P {chain} ")))
        {
            return Err(FirewallError::Missing {
                what: format!("the chain {chain} of {} in the table {}", self.programs.name(six), self.table),
                remedy: "name an existing chain with --accept-in, or none".to_owned(),
            });
        }
        let start = format!("-A {chain} ");
        let ours = |rule: &&str| rule.starts_with(ACCEPT_START) && rule.ends_with(ACCEPT_END);
        Ok(lines
            .iter()
            .filter_map(|line| line.strip_prefix(&start))
            .filter(ours)
            .map(str::to_owned)
            .collect())
    }
}

/// What in iptables stands in the way: rules that pass packets by our chain, a default-deny INPUT of the legacy variant
/// (that of the other is listed with nftables), rules in the variant that we do not use.
pub(super) fn warnings(
    programs: Programs,
    accept_in: Option<&AcceptIn>,
    warnings: &mut Vec<String>,
) -> Result<(), FirewallError> {
    let nft = programs.is_nft()?;
    for six in [false, true] {
        let name = programs.name(six);
        let hook = programs.list(six, TABLE, Some(HOOK))?;
        let before = hook.iter().take_while(|rule| !rule.ends_with(&format!("-j {CHAIN}")));
        if before.filter(|rule| rule.ends_with("-j ACCEPT")).count() > 0 {
            warnings.push(format!(
                "a rule of {name} in {TABLE} {HOOK} accepts packets before the guard sees them; move it behind the jump to {CHAIN}"
            ));
        }
        let accepts =
            matches!(accept_in, Some(AcceptIn::Iptables { table: "filter", chain }) if chain == "INPUT");
        if !nft && !accepts && denies(&programs.list(six, "filter", Some("INPUT"))?) {
            warnings.push(format!(
                "the chain INPUT of {name} drops what it does not know, so openings have no effect there; let them through with \
                 --accept-in INPUT"
            ));
        }
    }
    if nft {
        let names = others::legacy_table_names();
        if !names.is_empty() {
            warnings.push(format!(
                "the legacy variant of iptables is in use on this host too (tables {}), and the guard does not see its rules; move \
                 them to the nft variant or check them with iptables-legacy-save",
                names.join(", ")
            ));
        }
    }
    Ok(())
}

/// Whether a listed INPUT drops by default: by its policy or by a last rule for every packet.
fn denies(lines: &[String]) -> bool {
    let policy = lines.iter().any(|line| line == "-P INPUT DROP");
    let last = lines.iter().rfind(|line| line.starts_with("-A INPUT "));
    policy || last.is_some_and(|line| line == "-A INPUT -j DROP" || line.starts_with("-A INPUT -j REJECT"))
}

#[cfg(test)]
mod tests;
