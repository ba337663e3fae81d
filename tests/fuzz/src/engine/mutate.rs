//! Makes inputs of other inputs.
//!
//! A mutator of our own, of the few changes that all fuzzers share (bits, interesting numbers, blocks, splices, words):
//! those to be had want a sanitizer's runtime or a nightly compiler, or choose by themselves what comes next, and here an
//! execution must follow from its number alone.

/// Numbers that stand at the edges of types.
const EDGES: [u64; 18] = [
    0,
    1,
    7,
    16,
    64,
    127,
    128,
    255,
    256,
    1_024,
    4_096,
    32_767,
    32_768,
    65_535,
    65_536,
    0x7fff_ffff,
    0x7fff_ffff_ffff_ffff,
    u64::MAX,
];
/// The longest block that is copied or put in.
const BLOCK_MAX: usize = 128;

/// A stream of numbers, equal for equal beginnings on every machine and in every version: SplitMix64 (Steele, Lea and Flood,
/// "Fast splittable pseudorandom number generators", 2014).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Of this execution of a target.
    pub fn new(seed: u64, target: &str, number: u64) -> Self {
        // FNV-1a over the name.
        let name = target.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let mut random = Self(seed ^ name);
        Self(random.any() ^ number.wrapping_mul(0xd134_2543_de82_ef95))
    }

    /// Any number.
    pub fn any(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// A number below `end`; 0 when there is none.
    pub fn below(&mut self, end: usize) -> usize {
        let end = end.max(1);
        usize::try_from(self.any() % end as u64).unwrap_or(0)
    }

    fn byte(&mut self) -> u8 {
        self.any().to_le_bytes()[0]
    }

    fn one<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> Option<&'a T> {
        of.get(self.below(of.len())).copied()
    }
}

/// One to eight changes of an entry of the corpus; hardly ever more.
pub fn mutant(corpus: &[Vec<u8>], dictionary: &[&[u8]], longest: usize, random: &mut Random) -> Vec<u8> {
    let mut input = corpus.get(random.below(corpus.len())).cloned().unwrap_or_default();
    let changes = match random.below(16) {
        0 => 8 + random.below(32),
        1..=6 => 1,
        _ => 1 + random.below(8),
    };
    for _ in 0..changes {
        change(&mut input, corpus, dictionary, random);
        input.truncate(longest);
    }
    input
}

fn change(input: &mut Vec<u8>, corpus: &[Vec<u8>], dictionary: &[&[u8]], random: &mut Random) {
    let at = random.below(input.len());
    match random.below(13) {
        0 => {
            if let Some(byte) = input.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
        1 => {
            if let Some(byte) = input.get_mut(at) {
                *byte = random.byte();
            }
        }
        2 => number(input, at, random),
        3 => {
            let block = block(input, random).to_vec();
            put(input, at, &block);
        }
        4 => {
            let block = block(input, random).to_vec();
            insert(input, random.below(input.len() + 1), &block);
        }
        5 => {
            let block = vec![random.byte(); 1 + random.below(BLOCK_MAX)];
            insert(input, random.below(input.len() + 1), &block);
        }
        6 => {
            let length = block(input, random).len();
            let end = at.saturating_add(length).min(input.len());
            input.drain(at.min(end)..end);
        }
        7 => input.truncate(at),
        8 => {
            if let Some(other) = corpus.get(random.below(corpus.len())) {
                let from = random.below(other.len());
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
        }
        9 => {
            if let Some(other) = corpus.get(random.below(corpus.len())) {
                let block = block(other, random).to_vec();
                insert(input, random.below(input.len() + 1), &block);
            }
        }
        10 => {
            if let Some(word) = random.one(dictionary) {
                put(input, at, word);
            }
        }
        11 => {
            if let Some(word) = random.one(dictionary) {
                insert(input, random.below(input.len() + 1), word);
            }
        }
        _ => digits(input, at, random),
    }
}

/// A number of one to eight bytes, in either order, over what is there.
fn number(input: &mut Vec<u8>, at: usize, random: &mut Random) {
    let length = 1 << random.below(4);
    let edge = EDGES[random.below(EDGES.len())];
    let bytes = if random.below(2) == 0 { edge.to_le_bytes() } else { edge.swap_bytes().to_le_bytes() };
    if random.below(2) == 0 {
        put(input, at, &bytes[..length]);
    } else {
        put(input, at, &bytes[8 - length..]);
    }
}

/// Another number in place of the digits at or after a place.
fn digits(input: &mut Vec<u8>, at: usize, random: &mut Random) {
    let is_digit = |byte: &u8| byte.is_ascii_digit();
    let Some(first) = input.iter().skip(at).position(is_digit).map(|found| at + found) else { return };
    let length = input[first..].iter().take_while(|byte| is_digit(byte)).count();
    let number = match random.below(3) {
        0 => random.any() % 70_000,
        _ => EDGES[random.below(EDGES.len())],
    };
    input.splice(first..first + length, number.to_string().into_bytes());
}

fn block<'a>(input: &'a [u8], random: &mut Random) -> &'a [u8] {
    let from = random.below(input.len());
    let length = 1 + random.below(BLOCK_MAX);
    let end = from.saturating_add(length).min(input.len());
    &input[from.min(end)..end]
}

fn put(input: &mut Vec<u8>, at: usize, block: &[u8]) {
    let end = at.saturating_add(block.len()).min(input.len());
    input.splice(at.min(end)..end, block.iter().copied());
}

fn insert(input: &mut Vec<u8>, at: usize, block: &[u8]) {
    input.splice(at..at, block.iter().copied());
}
