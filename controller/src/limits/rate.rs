//! So many at once, and one more every so often, for each of many; in bounded memory.

use std::{collections::HashMap, hash::Hash, time::Duration};

use tokio::time::Instant;

/// How much is let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// At once.
    pub burst: u32,
    /// One more after each of these.
    pub every: Duration,
}

/// For each of them, when everything that was taken so far would have come one by one: a token bucket without a count
/// (the generic cell rate algorithm, ITU-T I.371). Whose time is past is forgotten.
#[derive(Debug)]
pub struct Rates<K> {
    rate: Rate,
    most: usize,
    due: HashMap<K, Instant>,
    /// Of those for whom there was no room.
    others: Option<Instant>,
}

impl<K: Eq + Hash> Rates<K> {
    /// For at most this many apart.
    pub fn new(rate: Rate, most: usize) -> Self {
        Self { rate, most, due: HashMap::new(), others: None }
    }

    /// Takes one.
    ///
    /// # Errors
    /// How long to wait when there is none to take.
    pub fn take(&mut self, who: K, now: Instant) -> Result<(), Duration> {
        if self.due.len() >= self.most && !self.due.contains_key(&who) {
            self.due.retain(|_, due| *due > now);
        }
        let known = self.due.get(&who).copied();
        let apart = known.is_some() || self.due.len() < self.most;
        let due = if apart { known } else { self.others }.map_or(now, |due| due.max(now));
        let wait = (due - now).saturating_sub(self.rate.every * self.rate.burst.saturating_sub(1));
        if !wait.is_zero() {
            return Err(wait);
        }
        let next = due + self.rate.every;
        if apart {
            self.due.insert(who, next);
        } else {
            self.others = Some(next);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { burst: 3, every: Duration::from_secs(1) };

    #[test]
    fn a_burst_and_then_one_at_a_time_for_each_of_them() {
        let (mut rates, start) = (Rates::new(RATE, 10), Instant::now());
        for _ in 0..3 {
            assert_eq!(rates.take("a", start), Ok(()));
        }
        assert_eq!(rates.take("a", start), Err(Duration::from_secs(1)));
        assert_eq!(rates.take("b", start), Ok(()), "another one is not touched");
        let later = start + Duration::from_millis(400);
        assert_eq!(rates.take("a", later), Err(Duration::from_millis(600)), "refusals cost nothing");
        assert_eq!(rates.take("a", start + Duration::from_secs(1)), Ok(()));
        assert!(rates.take("a", start + Duration::from_secs(1)).is_err());
        let rested = start + Duration::from_secs(60);
        assert_eq!([(); 4].map(|()| rates.take("a", rested).is_ok()), [true, true, true, false]);
    }

    #[test]
    fn those_for_whom_there_is_no_room_share() {
        let (mut rates, start) = (Rates::new(RATE, 2), Instant::now());
        for who in [1, 2, 3, 4, 5] {
            assert_eq!(rates.take(who, start), Ok(()));
        }
        assert!(rates.take(6, start).is_err(), "3, 4 and 5 took what the others have");
        assert_eq!(rates.take(1, start), Ok(()), "who has a place keeps it");
        assert_eq!(rates.due.len(), 2);
        let later = start + Duration::from_secs(10);
        assert_eq!(rates.take(6, later), Ok(()));
        assert_eq!(rates.due.len(), 1, "who asks for nothing is forgotten");
    }
}
