//! Minimum, median, maximum, and ratios of medians.

use std::{io::Write, time::Duration};

use anyhow::Result;

/// What one contender took in each round.
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) times: Vec<Duration>,
}

/// Writes a table; ratios are relative to the median of the row called `base`.
pub(crate) fn table(out: &mut dyn Write, rows: &mut [Row], base: &str) -> Result<()> {
    for row in rows.iter_mut() {
        row.times.sort_unstable();
    }
    let base_median = rows.iter().find(|row| row.name == base).map(median);
    let width = rows.iter().map(|row| row.name.len()).max().unwrap_or_default();
    writeln!(
        out,
        "{:width$}  {:>6}  {:>9}  {:>9}  {:>9}  median relative to {base}",
        "", "rounds", "min ms", "median ms", "max ms"
    )?;
    for row in rows.iter() {
        let (Some(first), Some(last)) = (row.times.first(), row.times.last()) else { continue };
        let own = median(row);
        write!(
            out,
            "{:width$}  {:>6}  {:>9.3}  {:>9.3}  {:>9.3}",
            row.name,
            row.times.len(),
            ms(*first),
            ms(own),
            ms(*last)
        )?;
        match base_median {
            Some(base) if !base.is_zero() => {
                writeln!(out, "  {:.3}", own.as_secs_f64() / base.as_secs_f64())?
            }
            _ => writeln!(out)?,
        }
    }
    Ok(())
}

fn median(row: &Row) -> Duration {
    row.times.get(row.times.len() / 2).copied().unwrap_or_default()
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
