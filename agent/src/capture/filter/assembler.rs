//! Writes classic BPF programs (linux/filter.h, linux/bpf_common.h) with labels instead of counted jumps.

/// One instruction, as the kernel's `struct sock_filter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// What to do.
    pub code: u16,
    /// How many instructions to skip when a test holds.
    pub when_true: u8,
    /// How many to skip when it does not.
    pub when_false: u8,
    /// Its operand.
    pub operand: u32,
}

/// Codes, put together from their parts in linux/bpf_common.h.
pub(super) mod code {
    pub(in super::super) const LOAD_ABSOLUTE: u16 = 0x20;
    pub(in super::super) const LOAD_INDEXED: u16 = 0x40;
    pub(in super::super) const LOAD_MEMORY: u16 = 0x60;
    pub(in super::super) const STORE: u16 = 0x02;
    pub(in super::super) const SET_X: u16 = 0x01;
    pub(in super::super) const ADD: u16 = 0x04;
    pub(in super::super) const ADD_X: u16 = 0x0c;
    pub(in super::super) const AND: u16 = 0x54;
    pub(in super::super) const SHIFT_LEFT: u16 = 0x64;
    pub(in super::super) const JUMP: u16 = 0x05;
    pub(in super::super) const IF_EQUAL: u16 = 0x15;
    pub(in super::super) const IF_AT_LEAST: u16 = 0x35;
    pub(in super::super) const IF_ANY: u16 = 0x45;
    pub(in super::super) const RETURN: u16 = 0x06;
    pub(in super::super) const COPY_TO_X: u16 = 0x07;
    pub(in super::super) const COPY_FROM_X: u16 = 0x87;
}

/// How much is loaded from the packet.
#[derive(Clone, Copy)]
pub(super) enum Size {
    Word = 0x00,
    Half = 0x08,
    Byte = 0x10,
}

/// A place that is jumped to. All jumps lead forward.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Label(usize);

#[derive(Default)]
pub(super) struct Assembler {
    program: Vec<Instruction>,
    /// Where each label is, once placed.
    places: Vec<usize>,
    /// Unconditional jumps whose distance is filled in at the end.
    jumps: Vec<(usize, Label)>,
}

impl Assembler {
    pub(super) fn label(&mut self) -> Label {
        self.places.push(0);
        Label(self.places.len() - 1)
    }

    pub(super) fn place(&mut self, label: Label) {
        self.places[label.0] = self.program.len();
    }

    pub(super) fn load(&mut self, size: Size, offset: u32) {
        self.plain(code::LOAD_ABSOLUTE | size as u16, offset);
    }

    /// Loads from X plus `offset`.
    pub(super) fn load_x(&mut self, size: Size, offset: u32) {
        self.plain(code::LOAD_INDEXED | size as u16, offset);
    }

    pub(super) fn set_x(&mut self, value: u32) {
        self.plain(code::SET_X, value);
    }

    /// Keeps the accumulator; there is one place to keep it.
    pub(super) fn store(&mut self) {
        self.plain(code::STORE, 0);
    }

    pub(super) fn recall(&mut self) {
        self.plain(code::LOAD_MEMORY, 0);
    }

    pub(super) fn add(&mut self, value: u32) {
        self.plain(code::ADD, value);
    }

    pub(super) fn add_x(&mut self) {
        self.plain(code::ADD_X, 0);
    }

    pub(super) fn and(&mut self, value: u32) {
        self.plain(code::AND, value);
    }

    pub(super) fn shift_left(&mut self, by: u32) {
        self.plain(code::SHIFT_LEFT, by);
    }

    pub(super) fn copy_to_x(&mut self) {
        self.plain(code::COPY_TO_X, 0);
    }

    pub(super) fn copy_from_x(&mut self) {
        self.plain(code::COPY_FROM_X, 0);
    }

    /// Ends the program: so many bytes of the packet pass, none for 0.
    pub(super) fn give(&mut self, bytes: u32) {
        self.plain(code::RETURN, bytes);
    }

    pub(super) fn jump(&mut self, label: Label) {
        self.jumps.push((self.program.len(), label));
        self.plain(code::JUMP, 0);
    }

    pub(super) fn if_equal(&mut self, value: u32, label: Label) {
        self.test(code::IF_EQUAL, value, (0, 1), label);
    }

    pub(super) fn unless_equal(&mut self, value: u32, label: Label) {
        self.test(code::IF_EQUAL, value, (1, 0), label);
    }

    pub(super) fn unless_at_least(&mut self, value: u32, label: Label) {
        self.test(code::IF_AT_LEAST, value, (1, 0), label);
    }

    /// Jumps when any of these bits is set.
    pub(super) fn if_any(&mut self, bits: u32, label: Label) {
        self.test(code::IF_ANY, bits, (0, 1), label);
    }

    /// Ends the program: `bytes` pass when the accumulator lies in one of the ascending ranges, else none. A balanced
    /// tree of comparisons with the numbers at which in and out change.
    pub(super) fn test_ranges(&mut self, ranges: &[(u16, u16)], bytes: u32) {
        let changes: Vec<u32> = ranges
            .iter()
            .flat_map(|(first, last)| [u32::from(*first), u32::from(*last) + 1])
            .filter(|change| (1..=u32::from(u16::MAX)).contains(change))
            .collect();
        let inside_at_zero = ranges.first().is_some_and(|(first, _)| *first == 0);
        self.program.extend(tree(&changes, inside_at_zero, bytes));
    }

    pub(super) fn finish(mut self) -> Vec<Instruction> {
        for (at, label) in self.jumps {
            debug_assert!(self.places[label.0] > at, "jumps lead forward only");
            let distance = self.places[label.0].saturating_sub(at + 1);
            self.program[at].operand = u32::try_from(distance).unwrap_or(0);
        }
        self.program
    }

    /// Conditional jumps reach 255 instructions only, so each steps over an unconditional one.
    fn test(&mut self, code: u16, operand: u32, (when_true, when_false): (u8, u8), label: Label) {
        self.program.push(Instruction { code, when_true, when_false, operand });
        self.jump(label);
    }

    fn plain(&mut self, code: u16, operand: u32) {
        self.program.push(plain(code, operand));
    }
}

fn plain(code: u16, operand: u32) -> Instruction {
    Instruction { code, when_true: 0, when_false: 0, operand }
}

/// Instructions that can stand anywhere: below the first of `changes` the answer is `inside`, and it turns at each.
fn tree(changes: &[u32], inside: bool, bytes: u32) -> Vec<Instruction> {
    let middle = changes.len() / 2;
    let Some(change) = changes.get(middle) else {
        return vec![plain(code::RETURN, if inside { bytes } else { 0 })];
    };
    let below = tree(&changes[..middle], inside, bytes);
    let above = tree(&changes[middle + 1..], inside ^ middle.is_multiple_of(2), bytes);
    let mut out = Vec::with_capacity(below.len() + above.len() + 2);
    let test = |when_true, when_false| Instruction {
        code: code::IF_AT_LEAST,
        when_true,
        when_false,
        operand: *change,
    };
    match u8::try_from(below.len()) {
        Ok(distance) => out.push(test(distance, 0)),
        Err(_) => {
            out.push(test(0, 1));
            out.push(plain(code::JUMP, u32::try_from(below.len()).unwrap_or(0)));
        }
    }
    out.extend(below);
    out.extend(above);
    out
}
