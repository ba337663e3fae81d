//! The wall clock. Shells read it here; cores take time as an argument.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Microseconds since the Unix epoch; 0 when the clock stands before it.
pub fn now_micros() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_clock_counts_microseconds() {
        // 2020-01-01 to 2200-01-01: a wrong unit lies far outside.
        assert!((1_577_836_800_000_000..7_258_118_400_000_000).contains(&super::now_micros()));
    }
}
