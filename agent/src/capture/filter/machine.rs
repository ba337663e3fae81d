//! A small machine that runs classic BPF programs, for tests: what the kernel's interpreter does, and its checks.

use super::assembler::{Instruction, code};

/// What the kernel knows of a packet besides its bytes.
#[derive(Clone, Copy)]
pub(super) struct Metadata {
    pub(super) ethertype: u16,
    pub(super) packet_type: u32,
}

/// How many bytes pass. As in the kernel, a load beyond the packet ends the program with none.
pub(super) fn run(program: &[Instruction], bytes: &[u8], metadata: Metadata) -> u32 {
    let (mut a, mut x, mut memory, mut at) = (0_u32, 0_u32, None, 0_usize);
    let load = |code: u16, offset: u32| {
        let start = usize::try_from(offset).unwrap();
        let field = |length: usize| {
            let bytes = bytes.get(start..start + length)?;
            Some(bytes.iter().fold(0_u32, |value, byte| value << 8 | u32::from(*byte)))
        };
        match code & 0x18 {
            0x00 => field(4),
            0x08 => field(2),
            _ => field(1),
        }
    };
    loop {
        let Instruction { code, when_true, when_false, operand } = program[at];
        at += 1;
        let mut choose = |holds: bool| at += usize::from(if holds { when_true } else { when_false });
        match code {
            code::RETURN => return operand,
            code::JUMP => at += usize::try_from(operand).unwrap(),
            code::IF_EQUAL => choose(a == operand),
            code::IF_AT_LEAST => choose(a >= operand),
            code::IF_ANY => choose(a & operand != 0),
            code::STORE => memory = Some(a),
            code::LOAD_MEMORY => a = memory.expect("stored before it is recalled"),
            code::SET_X => x = operand,
            code::ADD => a = a.wrapping_add(operand),
            code::ADD_X => a = a.wrapping_add(x),
            code::AND => a &= operand,
            code::SHIFT_LEFT => a <<= operand,
            code::COPY_TO_X => x = a,
            code::COPY_FROM_X => a = x,
            _ if code & !0x18 == code::LOAD_ABSOLUTE && operand >= 0xffff_f000 => {
                a = match operand - 0xffff_f000 {
                    0 => metadata.ethertype.into(),
                    4 => metadata.packet_type,
                    other => panic!("unknown ancillary data {other}"),
                };
            }
            _ if code & !0x18 == code::LOAD_ABSOLUTE || code & !0x18 == code::LOAD_INDEXED => {
                let base = if code & 0x40 != 0 { x } else { 0 };
                match load(code, base.wrapping_add(operand)) {
                    Some(value) => a = value,
                    None => return 0,
                }
            }
            _ => panic!("unknown instruction {code:#x}"),
        }
    }
}
