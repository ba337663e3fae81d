//! Ctrl-C and SIGTERM: labs are taken away before the process ends.
#![allow(unsafe_code, reason = "the standard library cannot install signal handlers")]

use std::{
    fs::File,
    io::{Read, pipe},
    os::fd::{AsRawFd, OwnedFd},
    sync::{
        OnceLock,
        atomic::{AtomicI32, Ordering},
    },
    thread,
};

use anyhow::{Context, Result};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// The writing end of the pipe to the thread that waits for signals; -1 before there is one.
static WAKE: AtomicI32 = AtomicI32::new(-1);
/// Keeps that end open for as long as the process lives.
static WAKE_OWNER: OnceLock<OwnedFd> = OnceLock::new();

extern "C" fn on_signal(signal: libc::c_int) {
    let byte = [signal as u8];
    // SAFETY: write(2) is async-signal-safe; the buffer is one byte that lives on this stack frame.
    unsafe { libc::write(WAKE.load(Ordering::Relaxed), byte.as_ptr().cast(), 1) };
}

/// Runs `tear_down` when SIGINT, SIGTERM or SIGHUP comes, then ends the process as the shell expects: with 128 plus the
/// signal's number. Only the first call does something.
pub(crate) fn tear_down_on_signal(tear_down: fn()) -> Result<()> {
    if WAKE_OWNER.get().is_some() {
        return Ok(());
    }
    let (reader, writer) = pipe().context("cannot make a pipe for signals")?;
    let writer = OwnedFd::from(writer);
    WAKE.store(writer.as_raw_fd(), Ordering::Relaxed);
    if WAKE_OWNER.set(writer).is_err() {
        return Ok(());
    }
    let mut reader = File::from(OwnedFd::from(reader));
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        let mut byte = [0];
        if reader.read_exact(&mut byte).is_ok() {
            tear_down();
            std::process::exit(128 + i32::from(byte[0]));
        }
    })?;
    let action = SigAction::new(SigHandler::Handler(on_signal), SaFlags::SA_RESTART, SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: the handler only loads an atomic and calls write(2), both async-signal-safe.
        unsafe { sigaction(signal, &action) }.with_context(|| format!("cannot handle {signal}"))?;
    }
    Ok(())
}
