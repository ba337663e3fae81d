//! Everything that the command writes goes through here.

use std::{
    io::{self, BufWriter, Stderr, Stdout, Write},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use clap::ValueEnum;
use fleetknock_core::{door::yaml::time_text, time::Timestamp};
use serde_json::Value;

use crate::resource::Resource;

#[cfg(test)]
mod tests;

/// How lists are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A table for people
    #[default]
    Table,
    /// A table with more columns
    Wide,
    /// JSON: a list is an array of documents
    Json,
    /// YAML: a list is a sequence of documents
    Yaml,
    /// Kinds and names only, one in each line
    Name,
}

/// Standard output and standard error, or buffers in their place.
pub(crate) struct Out<O: Write = BufWriter<Stdout>, E: Write = Stderr> {
    out: O,
    err: E,
    now: fn() -> Timestamp,
}

impl Out {
    pub(crate) fn standard() -> Self {
        Self { out: BufWriter::new(io::stdout()), err: io::stderr(), now: wall_clock }
    }

    /// Asks the person at the terminal; everything but a yes is a no.
    pub(crate) fn ask(&mut self, question: &str) -> io::Result<bool> {
        write!(self.err, "fleetknock: {} [y/N] ", clean(question))?;
        self.err.flush()?;
        let mut answer = String::new();
        io::stdin().read_line(&mut answer)?;
        Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
    }
}

impl<O: Write, E: Write> Out<O, E> {
    /// The wall clock.
    pub(crate) fn now(&self) -> Timestamp {
        (self.now)()
    }

    /// A line on standard output.
    pub(crate) fn line(&mut self, text: impl AsRef<str>) -> io::Result<()> {
        writeln!(self.out, "{}", clean(text.as_ref()))?;
        self.out.flush()
    }

    /// Text on standard output as it is, for what other programs read.
    pub(crate) fn raw(&mut self, text: &str) -> io::Result<()> {
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }

    /// Bytes on standard output as they are.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.out.flush()
    }

    /// Something that went on although it may not be meant.
    pub(crate) fn warning(&mut self, text: impl AsRef<str>) -> io::Result<()> {
        writeln!(self.err, "fleetknock: warning: {}", clean(text.as_ref()))
    }

    /// One of several problems; the last word is the error with which the command ends.
    pub(crate) fn problem(&mut self, text: impl AsRef<str>) -> io::Result<()> {
        writeln!(self.err, "fleetknock: error: {}", clean(text.as_ref()))
    }

    /// Progress and remarks, which are not the command's result.
    pub(crate) fn remark(&mut self, text: impl AsRef<str>) -> io::Result<()> {
        writeln!(self.err, "fleetknock: {}", clean(text.as_ref()))
    }

    /// A list of things of one kind.
    pub(crate) fn list<R: Resource>(&mut self, format: Format, items: &[R]) -> io::Result<()> {
        match format {
            Format::Table | Format::Wide => self.table(format == Format::Wide, items),
            Format::Json => self.documents(format, items.iter().map(R::document).collect()),
            Format::Yaml => self.documents(format, items.iter().map(R::document).collect()),
            Format::Name => items.iter().try_for_each(|item| self.line(name(&item.document()))),
        }
    }

    /// One thing.
    pub(crate) fn one<R: Resource>(&mut self, format: Format, item: &R) -> io::Result<()> {
        match format {
            Format::Json => self.raw(&json(&item.document())),
            _ => self.list(format, std::slice::from_ref(item)),
        }
    }

    /// A list of documents of any kinds.
    pub(crate) fn documents(&mut self, format: Format, documents: Vec<Value>) -> io::Result<()> {
        match format {
            Format::Yaml => {
                let texts: Vec<_> = documents.iter().map(yaml).collect();
                self.raw(&texts.join("---\n"))
            }
            _ => self.raw(&json(&Value::Array(documents))),
        }
    }

    fn table<R: Resource>(&mut self, wide: bool, items: &[R]) -> io::Result<()> {
        if items.is_empty() {
            return self.remark(format!("no {} found", R::PLURAL));
        }
        let now = self.now();
        let shown = |cells: Vec<String>| -> Vec<String> {
            let columns = R::COLUMNS.iter().zip(cells);
            columns.filter(|((_, only_wide), _)| wide || !only_wide).map(|(_, cell)| cell).collect()
        };
        let header = shown(R::COLUMNS.iter().map(|(name, _)| (*name).to_owned()).collect());
        let rows = std::iter::once(header).chain(items.iter().map(|item| shown(item.cells(now))));
        let text = aligned(&rows.collect::<Vec<_>>());
        self.raw(&text)
    }
}

/// Rows with their columns below each other, two spaces apart.
pub(crate) fn aligned(rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(|cell| clean(cell)).collect()).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:width$}  "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Without anything that steers a terminal: names, reasons and warnings come from elsewhere.
pub(crate) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect()
}

/// How long from now, such as `4m 10s`: whole seconds, and not below one as long as there is time left.
pub(crate) fn remaining(until: Timestamp, now: Timestamp) -> String {
    let left = until.since(now);
    if left.is_zero() {
        return "0s".to_owned();
    }
    time_text(Duration::from_secs((left.as_millis().div_ceil(1_000)) as u64))
}

/// How long ago, such as `4m10s`; `-` for never.
pub(crate) fn ago(then_ms: u64, now: Timestamp) -> String {
    if then_ms == 0 {
        return "-".to_owned();
    }
    let age = now.since(Timestamp::from_millis(then_ms)).as_secs();
    // Two units are enough for people.
    let age = match age {
        0..3_600 => age,
        3_600..86_400 => age - age % 60,
        _ => age - age % 3_600,
    };
    time_text(Duration::from_secs(age))
}

/// A time for programs, RFC 3339; null for never.
pub(crate) fn time_value(ms: u64) -> Value {
    if ms == 0 { Value::Null } else { Value::String(Timestamp::from_millis(ms).to_string()) }
}

fn wall_clock() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::ZERO + since
}

/// Such as `door/bastion-ssh`.
fn name(document: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    format!("{}/{}", text(&document["kind"]).to_lowercase(), text(&document["metadata"]["name"]))
}

/// Indented, with a line break at its end.
fn json(value: &Value) -> String {
    format!("{value:#}\n")
}

fn yaml(value: &Value) -> String {
    serde_saphyr::to_string(value).unwrap_or_default()
}

/// A reader that went away, as in `fleetknock get hosts | head -1`, is no error.
pub(crate) fn unless_reader_left(result: anyhow::Result<()>) -> anyhow::Result<()> {
    let left = |error: &anyhow::Error| {
        let io = error.chain().find_map(|cause| cause.downcast_ref::<io::Error>());
        io.is_some_and(|io| io.kind() == io::ErrorKind::BrokenPipe)
    };
    match result {
        Err(error) if left(&error) => Ok(()),
        result => result,
    }
}
