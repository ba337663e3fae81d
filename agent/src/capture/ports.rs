//! Sets of 16-bit numbers, kept as one bit each.

use std::fmt;

const WORDS: usize = 65_536 / 64;

/// A set of ports or payload lengths: 8 KiB, membership in one look.
#[derive(Clone, PartialEq, Eq)]
pub struct PortSet {
    bits: Box<[u64; WORDS]>,
}

impl Default for PortSet {
    /// Empty.
    fn default() -> Self {
        Self { bits: Box::new([0; WORDS]) }
    }
}

impl PortSet {
    /// Adds a number.
    pub fn insert(&mut self, number: u16) {
        self.bits[usize::from(number) / 64] |= 1 << (number % 64);
    }

    /// Adds all from `first` to `last`, both included.
    pub fn insert_range(&mut self, first: u16, last: u16) {
        (first..=last).for_each(|number| self.insert(number));
    }

    /// Removes a number.
    pub fn remove(&mut self, number: u16) {
        self.bits[usize::from(number) / 64] &= !(1 << (number % 64));
    }

    /// Adds all of another set.
    pub fn add(&mut self, other: &Self) {
        self.bits.iter_mut().zip(other.bits.iter()).for_each(|(mine, theirs)| *mine |= theirs);
    }

    /// Removes all of another set.
    pub fn subtract(&mut self, other: &Self) {
        self.bits.iter_mut().zip(other.bits.iter()).for_each(|(mine, theirs)| *mine &= !theirs);
    }

    /// Whether the number is in the set.
    pub fn contains(&self, number: u16) -> bool {
        self.bits[usize::from(number) / 64] >> (number % 64) & 1 == 1
    }

    /// Whether nothing is in the set.
    pub fn is_empty(&self) -> bool {
        self.bits.iter().all(|word| *word == 0)
    }

    /// The set as the fewest ranges, ascending, first and last included.
    pub fn ranges(&self) -> Vec<(u16, u16)> {
        let mut ranges: Vec<(u16, u16)> = Vec::new();
        for number in 0..=u16::MAX {
            if !self.contains(number) {
                continue;
            }
            match ranges.last_mut() {
                Some(last) if last.1.checked_add(1) == Some(number) => last.1 = number,
                _ => ranges.push((number, number)),
            }
        }
        ranges
    }

    /// At most `limit` ranges that hold the whole set, and as few numbers besides as that allows.
    pub fn covering_ranges(&self, limit: usize) -> Vec<(u16, u16)> {
        let ranges = self.ranges();
        let surplus = ranges.len().saturating_sub(limit.max(1));
        if surplus == 0 {
            return ranges;
        }
        // Closing the narrowest gaps lets the fewest foreign numbers in.
        let mut gaps: Vec<usize> = (1..ranges.len()).collect();
        gaps.sort_by_key(|after| ranges[*after].0 - ranges[*after - 1].1);
        let mut closed = vec![false; ranges.len()];
        gaps.iter().take(surplus).for_each(|after| closed[*after] = true);

        let mut covering: Vec<(u16, u16)> = Vec::with_capacity(limit);
        for (range, closed) in ranges.into_iter().zip(closed) {
            match covering.last_mut() {
                Some(last) if closed => last.1 = range.1,
                _ => covering.push(range),
            }
        }
        covering
    }
}

impl fmt::Debug for PortSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.ranges()).finish()
    }
}

impl FromIterator<u16> for PortSet {
    fn from_iter<I: IntoIterator<Item = u16>>(numbers: I) -> Self {
        let mut set = Self::default();
        numbers.into_iter().for_each(|number| set.insert(number));
        set
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ranges_and_numbers_say_the_same(numbers in prop::collection::btree_set(any::<u16>(), 0..300)) {
            let set: PortSet = numbers.iter().copied().collect();
            let spread: Vec<u16> = set.ranges().into_iter().flat_map(|(first, last)| first..=last).collect();
            prop_assert_eq!(spread, numbers.into_iter().collect::<Vec<_>>());
        }

        #[test]
        fn few_ranges_still_cover_everything(
            numbers in prop::collection::btree_set(any::<u16>(), 0..300), limit in 1_usize..50,
        ) {
            let set: PortSet = numbers.iter().copied().collect();
            let covering = set.covering_ranges(limit);
            prop_assert!(covering.len() <= limit);
            prop_assert!(covering.windows(2).all(|pair| pair[0].1 < pair[1].0));
            for number in numbers {
                prop_assert!(covering.iter().any(|(first, last)| (*first..=*last).contains(&number)));
            }
        }
    }

    #[test]
    fn the_whole_space_is_one_range() {
        let mut all = PortSet::default();
        all.insert_range(0, u16::MAX);
        assert_eq!(all.ranges(), [(0, u16::MAX)]);
        all.subtract(&[22, 80].into_iter().collect());
        assert_eq!(all.ranges(), [(0, 21), (23, 79), (81, u16::MAX)]);
        assert_eq!(all.covering_ranges(2).len(), 2);
    }
}
