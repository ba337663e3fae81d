//! How far apart the versions of an agent and a controller may be: one minor version; see deploy/upgrades.md. Pure.

/// What is to be said of an agent of this version, to a controller of that one; nothing when they are promised to work
/// together. A version that is none says nothing.
pub fn remark(agent: &str, controller: &str) -> Option<String> {
    let (theirs, ours) = (parse(agent)?, parse(controller)?);
    let apart = theirs.0 != ours.0 || theirs.1.abs_diff(ours.1) > 1;
    apart.then(|| {
        let who = if theirs < ours { "the agent" } else { "the controllers" };
        format!(
            "the agent's version {agent} is more than one minor version from this controller's {controller}, which nobody \
             tested: upgrade {who}"
        )
    })
}

fn parse(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split(['.', '-', '+']);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_minor_version_apart_is_fine_both_ways() {
        for (agent, controller) in
            [("0.1.0", "0.1.9"), ("0.1.0", "0.2.0"), ("1.3.0-rc.1", "1.2.0"), ("test", "1.0.0"), ("", "x")]
        {
            assert_eq!(remark(agent, controller), None, "{agent} {controller}");
        }
        assert!(remark("0.1.0", "0.3.0").unwrap().ends_with("upgrade the agent"));
        assert!(remark("2.0.0", "1.9.0").unwrap().ends_with("upgrade the controllers"));
    }
}
