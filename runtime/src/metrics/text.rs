//! The OpenMetrics text that the registry writes: turned into the older language, and read back into values.
//!
//! Pure. Written after <https://prometheus.io/docs/specs/om/open_metrics_spec/>; it reads what our registry writes, so
//! neither time stamps nor exemplars.

/// What one family of samples is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Rises; its samples end in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Samples `_bucket` with `le`, `_sum` and `_count`.
    Histogram,
    /// Always 1, what is told is in its labels; its sample ends in `_info`.
    Info,
}

/// A number as it is written: whole ones stay exact.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    /// Without a fraction.
    Whole(i64),
    /// With one, or too large for the other.
    Real(f64),
}

impl Number {
    /// As a fraction; above 2^53 it is not exact.
    pub fn as_f64(self) -> f64 {
        match self {
            #[allow(clippy::cast_precision_loss, reason = "said above")]
            Self::Whole(whole) => whole as f64,
            Self::Real(real) => real,
        }
    }
}

/// One line that has a value.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// With its suffix, such as `x_bucket`.
    pub name: String,
    /// In the order in which they are written.
    pub labels: Vec<(String, String)>,
    /// Its value.
    pub value: Number,
}

impl Sample {
    /// The value of a label.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }
}

/// One instrument.
#[derive(Clone, Debug, PartialEq)]
pub struct Family {
    /// Without a suffix of its samples.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// One sentence.
    pub help: String,
    /// Such as `seconds`; the name ends in it.
    pub unit: String,
    /// In the order in which they are written.
    pub samples: Vec<Sample>,
}

/// Why a text is not what the registry writes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the metrics cannot be read: {reason}")]
pub struct TextError {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub reason: &'static str,
}

/// Reads a text.
///
/// # Errors
/// At the first line that the registry does not write.
pub fn parse(text: &str) -> Result<Vec<Family>, TextError> {
    let mut families: Vec<Family> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let wrong = |reason| TextError { line: number + 1, reason };
        if let Some(comment) = line.strip_prefix("# ") {
            if comment == "EOF" {
                return Ok(families);
            }
            let (what, rest) = comment.split_once(' ').ok_or_else(|| wrong("a comment says nothing"))?;
            let (name, said) = rest.split_once(' ').ok_or_else(|| wrong("a comment says nothing"))?;
            if families.last().is_none_or(|family| family.name != name) {
                families.push(Family {
                    name: name.to_owned(),
                    kind: Kind::Gauge,
                    help: String::new(),
                    unit: String::new(),
                    samples: Vec::new(),
                });
            }
            let Some(family) = families.last_mut() else { continue };
            match what {
                "HELP" => family.help = unescaped(said),
                "UNIT" => family.unit = said.to_owned(),
                "TYPE" => family.kind = kind(said).ok_or_else(|| wrong("an unknown type"))?,
                _ => return Err(wrong("an unknown comment")),
            }
        } else {
            let sample = sample(line).map_err(wrong)?;
            let family = families.last_mut().filter(|family| sample.name.starts_with(&family.name));
            family.ok_or_else(|| wrong("a sample without its type"))?.samples.push(sample);
        }
    }
    Err(TextError { line: text.lines().count(), reason: "it ends without # EOF" })
}

/// The same in the older language, in which a family of counters and of what is told has the name of its samples.
pub fn classic(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut lines = text.lines().peekable();
    let mut header: Vec<(&str, &str, &str)> = Vec::new();
    while let Some(line) = lines.next() {
        match line.strip_prefix("# ") {
            None => {
                out.push_str(line);
                out.push('\n');
            }
            Some(comment) => {
                let mut words = comment.splitn(3, ' ');
                if let (Some(what), Some(name), Some(said)) = (words.next(), words.next(), words.next()) {
                    header.push((what, name, said));
                }
                if lines.peek().is_none_or(|next| !next.starts_with("# ") || !is_same(next, comment)) {
                    write_header(&mut out, &header);
                    header.clear();
                }
            }
        }
    }
    out
}

/// Whether two comments speak of one family.
fn is_same(line: &str, comment: &str) -> bool {
    line.trim_start_matches("# ").split(' ').nth(1) == comment.split(' ').nth(1)
}

fn write_header(out: &mut String, header: &[(&str, &str, &str)]) {
    let said = |what: &str| header.iter().find(|(key, ..)| *key == what);
    let Some((_, name, kind)) = said("TYPE") else { return };
    let (suffix, kind) = match *kind {
        "counter" => ("_total", "counter"),
        "info" => ("_info", "gauge"),
        other => ("", other),
    };
    if let Some((_, _, help)) = said("HELP") {
        // A quotation mark is escaped in the newer language only.
        out.push_str(&format!("# HELP {name}{suffix} {}\n", help.replace("\\\"", "\"")));
    }
    out.push_str(&format!("# TYPE {name}{suffix} {kind}\n"));
}

fn kind(word: &str) -> Option<Kind> {
    Some(match word {
        "counter" => Kind::Counter,
        "gauge" => Kind::Gauge,
        "histogram" => Kind::Histogram,
        "info" => Kind::Info,
        _ => return None,
    })
}

fn sample(line: &str) -> Result<Sample, &'static str> {
    let end = line.find(['{', ' ']).ok_or("a sample without a value")?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = Vec::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (key, after) = rest.split_once("=\"").ok_or("a label without a value")?;
            let (value, after) = quoted(after).ok_or("a label that does not end")?;
            labels.push((key.to_owned(), value));
            rest = after.strip_prefix(',').unwrap_or(after);
        }
        rest = &rest[1..];
    }
    let value = rest.strip_prefix(' ').ok_or("a sample without a value")?;
    Ok(Sample { name: name.to_owned(), labels, value: number(value).ok_or("a value that is no number")? })
}

fn number(text: &str) -> Option<Number> {
    if let Ok(whole) = text.parse() {
        return Some(Number::Whole(whole));
    }
    text.parse().ok().map(Number::Real)
}

/// What stands before the closing quotation mark, and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut escaped = false;
    for (at, letter) in text.char_indices() {
        match letter {
            '"' if !escaped => return Some((unescaped(&text[..at]), &text[at + 1..])),
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    None
}

fn unescaped(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => match letters.next() {
                Some('n') => plain.push('\n'),
                Some(other) => plain.push(other),
                None => plain.push('\\'),
            },
            other => plain.push(other),
        }
    }
    plain
}
