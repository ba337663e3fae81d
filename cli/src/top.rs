//! `fleetknock top`: the fleet on one screen of a terminal.

use std::{env, io, io::IsTerminal as _, time::Duration};

use anyhow::anyhow;
use clap::Args;
use fleetknock_runtime::exit;
use ratatui::{buffer::Buffer, layout::Rect};

use crate::{args::time, controllers::Controllers, output::Out};

mod ask;
mod draw;
mod model;
mod rows;
#[cfg(test)]
mod sample;
mod screen;

use self::{
    draw::Look,
    model::{Update, Wall},
};

/// How many seconds of knocks are shown.
const SECONDS: u32 = 300;
/// Looking more often would load the controllers without showing more.
const INTERVAL_LEAST: Duration = Duration::from_millis(200);
/// One frame where nothing says how large the reader's terminal is.
const ONCE: Rect = Rect::new(0, 0, 120, 40);

/// Show the fleet on one screen: knocks, hosts, attempts, openings, bans and events
///
/// Looks again each second until q is pressed. Openings can be closed (c) and bans lifted (u) there by operators, and
/// what a source knocked explained (e); ? shows all keys. Colors are left out when NO_COLOR is set.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  fleetknock top
  fleetknock top --interval 5s --controller https://10.0.0.1:7600,https://10.0.0.2:7600
  NO_COLOR=1 fleetknock top
  fleetknock top --once                  # one frame as text, for scripts and mails
  COLUMNS=160 LINES=50 fleetknock top --once")]
pub(crate) struct Top {
    /// How long to wait between two looks, at least 200ms
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = time)]
    interval: Duration,
    /// Print one frame as text and end; of 120 columns and 40 lines unless COLUMNS and LINES say otherwise
    #[arg(long)]
    once: bool,
}

pub(crate) async fn run(command: &Top, controllers: &Controllers, out: &mut Out) -> anyhow::Result<()> {
    if command.interval < INTERVAL_LEAST {
        let error = anyhow!("{:?} (--interval) is too short; give at least 200ms", command.interval);
        return Err(exit::coded(exit::USAGE, error));
    }
    if command.once {
        return once(controllers, out).await;
    }
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        let error = anyhow!(
            "this is no terminal: top needs one to draw on and for its keys; use 'fleetknock top --once', 'fleetknock get' \
             or 'fleetknock watch'"
        );
        return Err(exit::coded(exit::USAGE, error));
    }
    // https://no-color.org: set and not empty.
    let color = env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    screen::run(controllers, command.interval, Look { color }, || out.now()).await
}

async fn once(controllers: &Controllers, out: &mut Out) -> anyhow::Result<()> {
    let seen = ask::seen(controllers).await?;
    let past = ask::past(controllers, seen.overview.now_ms).await?;
    let mut wall = Wall::default();
    wall.take_in(Update::Seen(Box::new(seen)), out.now());
    wall.take_in(past, out.now());
    let size = |name: &str, otherwise: u16| {
        let given = env::var(name).ok().and_then(|value| value.parse().ok());
        // More than anybody prints is a mistake.
        given.filter(|size| (10..=1_000).contains(size)).unwrap_or(otherwise)
    };
    let area = Rect::new(0, 0, size("COLUMNS", ONCE.width), size("LINES", ONCE.height));
    let mut buffer = Buffer::empty(area);
    draw::draw(&wall, out.now(), Look { color: false }, area, &mut buffer);
    out.raw(&draw::as_text(&buffer))?;
    Ok(())
}
