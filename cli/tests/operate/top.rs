//! `fleetknock top` on a terminal of its own: what it shows, what keys do, and that the terminal is given back.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::fd::OwnedFd,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use nix::{
    pty::{Winsize, openpty},
    sys::termios::{Termios, tcgetattr},
    unistd::ttyname,
};

use super::{StandIn, run};

/// How long a frame may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// What a program writes to get its own screen and to give it back: xterm's control sequences, DEC private mode 1049.
const ENTERS: &str = "\x1b[?1049h";
const LEAVES: &str = "\x1b[?1049l";

#[test]
fn it_shows_the_fleet_and_carries_out_orders() {
    let fleet = StandIn::with_a_wall();
    let mut screen = Screen::of(&fleet, &["top", "--interval", "200ms"], (80, 24));
    for text in
        ["fleet blue", "user alice (operator)", "db-1", "cut off", "■■□ 2/3", "203.0.113.9", "192.0.2.66"]
    {
        screen.wait_for(text);
    }

    // Attempts, openings; the first of those ends first.
    screen.press("\t\t");
    screen.press("c");
    screen.wait_for("close 2001:db8::5 at bastion-ssh? [y/N]");
    screen.press("n");
    screen.wait_for("nothing was done");
    assert_eq!(fleet.openings(), ["o1", "o2", "o3"]);
    screen.press("\x1b[B");
    screen.press("c");
    screen.wait_for("close 203.0.113.9 at bastion-ssh? [y/N]");
    screen.press("y");
    screen.wait_for("closed 203.0.113.9 at bastion-ssh");
    screen.wait_for("Openings (2)");
    assert_eq!(fleet.openings(), ["o1", "o3"]);

    screen.press("\tu");
    screen.wait_for("lift the ban of 192.0.2.66? [y/N]");
    screen.press("y");
    screen.wait_for("the ban of 192.0.2.66 is lifted");
    assert_eq!(fleet.bans(), ["192.0.2.7"]);

    screen.press("e");
    screen.wait_for("Knock again, with nothing in between.");
    screen.press("q");
    screen.press("/edge");
    screen.press("\r");
    screen.wait_for("Hosts (2)");

    screen.resize(100, 40);
    screen.wait_for_size(40);
    screen.press("q");
    screen.ended_well();
}

#[test]
fn the_terminal_is_given_back_when_it_is_told_to_end() {
    let fleet = StandIn::with_a_wall();
    for ending in ["\x03", "TERM", "HUP"] {
        let mut screen = Screen::of(&fleet, &["top"], (80, 24));
        screen.wait_for("fleet blue");
        match ending {
            "\x03" => screen.press(ending),
            signal => {
                let pid = screen.child.id().to_string();
                assert!(Command::new("kill").args(["-s", signal, &pid]).status().unwrap().success());
            }
        }
        screen.ended_well();
    }
}

#[test]
fn a_controller_that_goes_away_and_comes_back_is_seen_to() {
    let fleet = StandIn::with_a_wall();
    let address = fleet.address();
    let mut screen = Screen::of(&fleet, &["top", "--interval", "200ms"], (80, 24));
    screen.wait_for("fleet blue");
    drop(fleet);
    screen.wait_for("NO ANSWER since ");
    // What was seen last stays to be looked at.
    screen.wait_for("203.0.113.9");
    let _fleet = StandIn::with_a_wall_at(&address);
    screen.wait_gone("NO ANSWER");
    screen.press("q");
    screen.ended_well();
}

#[test]
fn without_a_terminal_it_says_what_to_use_instead() {
    let fleet = StandIn::with_a_wall();
    let refused = fleet.run(&["top"], "");
    assert_eq!(refused.code, 64);
    let line = &refused.errors[0];
    for instead in ["this is no terminal", "top --once", "fleetknock get", "fleetknock watch"] {
        assert!(line.contains(instead), "{line}");
    }
    let refused = fleet.run(&["top", "--interval", "1ms"], "");
    assert_eq!(refused.code, 64, "{refused:?}");
}

#[test]
fn one_frame_is_printed_as_text_for_scripts() {
    let fleet = StandIn::with_a_wall();
    let mut command = fleet.command(&["top", "--once"]);
    command.env("COLUMNS", "100").env("LINES", "30");
    let once = run(command, "");
    assert_eq!((once.code, once.lines.len()), (0, 30), "{once:?}");
    let text = once.lines.join("\n");
    for part in [
        "fleet blue  by ctl-1 0.1.0  as user alice (operator)",
        "hosts 3/4 up  1 cut off  1 drifting",
        "door-applied",
    ] {
        assert!(text.contains(part), "{text}");
    }
    assert!(!text.contains('\x1b') && once.lines.iter().all(|line| line.chars().count() <= 100), "{text}");

    let mut away = Command::new(env!("CARGO_BIN_EXE_fleetknock"));
    away.args(["top", "--once", "--insecure", "--controller", "http://127.0.0.1:1"]);
    assert_eq!(run(away, "").code, 69);
}

/// The command on a pseudo-terminal, and what it has drawn there.
struct Screen {
    child: Child,
    keys: File,
    terminal: OwnedFd,
    before: Termios,
    written: Arc<Mutex<Vec<u8>>>,
}

impl Screen {
    fn of(fleet: &StandIn, arguments: &[&str], (columns, rows): (u16, u16)) -> Self {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(Some(&size), None).unwrap();
        let before = tcgetattr(&pty.slave).unwrap();
        // In a session of its own, so that its terminal is this one and not that of whoever runs the tests.
        let mut command = Command::new("setsid");
        command.args(["--ctty", env!("CARGO_BIN_EXE_fleetknock")]).args(arguments);
        command
            .env("FLEETKNOCK_CONTROLLER", fleet.url())
            .env("FLEETKNOCK_INSECURE", "true")
            .env("TERM", "xterm-256color");
        let end = || Stdio::from(pty.slave.try_clone().unwrap());
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        let keys = File::from(pty.master);
        let written: Arc<Mutex<Vec<u8>>> = Arc::default();
        let (mut from, to) = (keys.try_clone().unwrap(), Arc::clone(&written));
        thread::spawn(move || {
            let mut bytes = [0; 4_096];
            while let Ok(length @ 1..) = from.read(&mut bytes) {
                to.lock().unwrap().extend(&bytes[..length]);
            }
        });
        Self { child, keys, terminal: pty.slave, before, written }
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    fn resize(&self, columns: u16, rows: u16) {
        let name = ttyname(&self.terminal).unwrap();
        let size = ["rows", &rows.to_string(), "cols", &columns.to_string()].map(str::to_owned);
        assert!(Command::new("stty").arg("-F").arg(name).args(size).status().unwrap().success());
    }

    fn wait_for(&mut self, text: &str) {
        self.wait(&format!("'{text}' to be shown"), |lines| lines.iter().any(|line| line.contains(text)));
    }

    fn wait_gone(&mut self, text: &str) {
        self.wait(&format!("'{text}' to go"), |lines| !lines.iter().any(|line| line.contains(text)));
    }

    /// Until the last line of the screen is this one.
    fn wait_for_size(&mut self, rows: usize) {
        self.wait(&format!("{rows} rows"), |lines| lines.len() == rows);
    }

    fn wait(&mut self, what: &str, holds: impl Fn(&[String]) -> bool) {
        let start = Instant::now();
        while !holds(&lines(&self.text())) {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "it ended with {ended:?}: {}", self.text());
            assert!(
                start.elapsed() < PATIENCE,
                "waited in vain for {what}:\n{}",
                lines(&self.text()).join("\n")
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.written.lock().unwrap()).into_owned()
    }

    /// It ends by itself without an error, and the terminal is as it was.
    fn ended_well(mut self) {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(start.elapsed() < PATIENCE, "it does not end: {}", self.text());
            thread::sleep(Duration::from_millis(20));
        };
        assert!(status.success(), "{status}: {}", self.text());
        let after = tcgetattr(&self.terminal).unwrap();
        assert_eq!(
            (after.input_flags, after.output_flags, after.local_flags),
            (self.before.input_flags, self.before.output_flags, self.before.local_flags)
        );
        while !self.text().contains(LEAVES) {
            assert!(start.elapsed() < PATIENCE, "its screen is not left: {}", self.text());
            thread::sleep(Duration::from_millis(20));
        }
        let text = self.text();
        assert_eq!((text.matches(ENTERS).count(), text.rfind(ENTERS) < text.rfind(LEAVES)), (1, true));
        assert!(text.rfind("\x1b[?25l") < text.rfind("\x1b[?25h"), "the cursor is hidden");
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The screen after all that was written: text, and where the cursor was put (CUP, ED and EL of ECMA-48); all else, such
/// as colors, changes no text.
fn lines(written: &str) -> Vec<String> {
    let mut cells: Vec<Vec<char>> = Vec::new();
    let (mut row, mut column) = (0_usize, 0_usize);
    let mut rest = written.chars();
    while let Some(c) = rest.next() {
        if c != '\x1b' {
            if !c.is_control() {
                let line = {
                    cells.resize(cells.len().max(row + 1), Vec::new());
                    &mut cells[row]
                };
                line.resize(line.len().max(column + 1), ' ');
                line[column] = c;
                column += 1;
            }
            continue;
        }
        if rest.next() != Some('[') {
            continue;
        }
        let mut numbers = String::new();
        let end = rest.by_ref().find(|c| {
            let ends = c.is_ascii_alphabetic();
            if !ends {
                numbers.push(*c);
            }
            ends
        });
        let number =
            |place: usize| numbers.split(';').nth(place).and_then(|number| number.parse::<usize>().ok());
        match end {
            Some('H') => (row, column) = (number(0).unwrap_or(1) - 1, number(1).unwrap_or(1) - 1),
            Some('J') => cells.clear(),
            _ => {}
        }
    }
    cells.into_iter().map(|line| line.into_iter().collect()).collect()
}
