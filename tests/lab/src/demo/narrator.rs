//! Telling what happens, in plain words.

use std::{io::Write, time::Duration};

use anyhow::Result;

/// Writes the tale, and keeps the timings for the table at its end.
pub(super) struct Narrator<'w> {
    out: &'w mut dyn Write,
    colour: bool,
    steps: u32,
    timings: Vec<(String, Duration)>,
}

impl<'w> Narrator<'w> {
    pub(super) fn new(out: &'w mut dyn Write, colour: bool) -> Self {
        Self { out, colour, steps: 0, timings: Vec::new() }
    }

    pub(super) fn title(&mut self, text: &str) -> Result<()> {
        let line = self.paint("1", text);
        self.line(&format!("\n{line}"))
    }

    /// A new chapter.
    pub(super) fn step(&mut self, text: &str) -> Result<()> {
        self.steps += 1;
        let line = self.paint("1;36", &format!("{}. {text}", self.steps));
        self.line(&format!("\n{line}"))
    }

    pub(super) fn say(&mut self, text: &str) -> Result<()> {
        self.line(&format!("   {text}"))
    }

    pub(super) fn fact(&mut self, what: &str, value: &str) -> Result<()> {
        self.line(&format!("   {what:<10} {value}"))
    }

    /// A claim that was checked and holds.
    pub(super) fn ok(&mut self, text: &str) -> Result<()> {
        let mark = self.paint("32", "ok");
        self.line(&format!("   {mark} {text}"))
    }

    /// A timing; it comes again in the table.
    pub(super) fn took(&mut self, what: &str, time: Duration) -> Result<()> {
        self.timings.push((what.to_owned(), time));
        let line = self.paint("2", &format!("{what}: {}", in_words(time)));
        self.say(&line)
    }

    pub(super) fn table(&mut self, title: &str) -> Result<()> {
        let line = self.paint("1", title);
        self.line(&format!("\n{line}"))?;
        for (what, time) in std::mem::take(&mut self.timings) {
            self.line(&format!("   {what:<52} {:>10}", in_words(time)))?;
        }
        Ok(())
    }

    pub(super) fn done(&mut self, time: Duration) -> Result<()> {
        let line = self.paint("1;32", &format!("All claims held, in {}.", in_words(time)));
        self.line(&format!("\n{line}"))
    }

    fn line(&mut self, text: &str) -> Result<()> {
        writeln!(self.out, "{text}")?;
        self.out.flush()?;
        Ok(())
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Milliseconds with two digits below ten, seconds from ten seconds on.
fn in_words(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1e3;
    match ms {
        _ if ms >= 10_000.0 => format!("{:.1} s", ms / 1e3),
        _ if ms >= 10.0 => format!("{ms:.0} ms"),
        _ => format!("{ms:.2} ms"),
    }
}
