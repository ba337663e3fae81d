//! The lab after the demo, to play with.

use std::{env, fs, thread, time::Duration};

use anyhow::Result;

use super::{KNOCK, SERVICE, Stage, doors, narrator::Narrator, stop_file, typed};
use crate::{Lab, programs};

/// How often the demo looks whether it should end.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Says how to play, and keeps the lab until it is told to stop.
pub(super) fn ground(lab: &Lab, stage: &Stage<'_>, tale: &mut Narrator<'_>) -> Result<()> {
    let stop = stop_file()?;
    let _ = fs::remove_file(&stop);
    // People type slowly: the door stays open for longer now.
    stage.fleet.apply(&doors().replace("for: 8s", "for: 60s"))?;
    let program = typed(&programs::path("fleetknock")?);
    let outside = env::var("FLEETKNOCK_LAB_OUTSIDE").map_or_else(
        |_| String::new(),
        |pid| format!("nsenter --preserve-credentials -U -m -n -p -t $(pgrep -P {pid}) "),
    );
    let inside = |host: &str| format!("{outside}ip netns exec {}{host} ", lab.prefix());
    let knocks: Vec<_> = KNOCK
        .iter()
        .map(|(name, protocol, port)| Ok(format!("{protocol}/{port}@{}", stage.host(name)?.v4())))
        .collect::<Result<_>>()?;
    let bastion = stage.host("bastion-1")?.v4();
    tale.title("The lab keeps running. Try this from another terminal:")?;
    for (what, command) in [
        (
            "knock, and see the port open (for 60 seconds):",
            format!(
                "{}{program} knock {} --then-wait tcp/{SERVICE}@{bastion}",
                inside("client"),
                knocks.join(" ")
            ),
        ),
        ("use it (type a line, it comes back):", format!("{}nc {bastion} {SERVICE}", inside("client"))),
        ("the stranger cannot:", format!("{}nc -zv -w 2 {bastion} {SERVICE}", inside("stranger"))),
        (
            "ask the controller:",
            format!(
                "{}{program} --controller {} --insecure get openings",
                inside("control"),
                stage.fleet.url()
            ),
        ),
        (
            "watch it live:",
            format!("{}{program} --controller {} --insecure watch", inside("control"), stage.fleet.url()),
        ),
        ("look into a kernel:", format!("{}nft list ruleset", inside("bastion-1"))),
    ] {
        tale.say("")?;
        tale.say(what)?;
        tale.say(&format!("  {command}"))?;
    }
    tale.say("")?;
    tale.say(&format!("Logs: {}", lab.directory().display()))?;
    tale.say("End it with Ctrl-C here, or with: make demo-stop")?;
    while !stop.exists() {
        thread::sleep(LOOK_EVERY);
    }
    let _ = fs::remove_file(&stop);
    Ok(())
}
