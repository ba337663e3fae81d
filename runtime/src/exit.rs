//! How a program ends: one line on standard error, and an exit code that says what kind of thing was wrong.
//!
//! The codes are those of sysexits.h (BSD, see the man page sysexits(3head)), which systemd's
//! `RestartPreventExitStatus=` and scripts can tell apart.

use std::{future::Future, io::Write as _, process::ExitCode};

use anyhow::Context as _;

use crate::{config::ConfigError, drain::DrainError, tls::FileError};

/// A setting is wrong: EX_USAGE.
pub const USAGE: u8 = 64;
/// Input data is wrong: EX_DATAERR.
pub const DATA: u8 = 65;
/// A file that was named cannot be read: EX_NOINPUT.
pub const NO_INPUT: u8 = 66;
/// Something that is needed is not there: EX_UNAVAILABLE.
pub const UNAVAILABLE: u8 = 69;
/// The program itself is wrong: EX_SOFTWARE.
pub const SOFTWARE: u8 = 70;
/// The operating system refused: EX_OSERR.
pub const OS: u8 = 71;
/// Reading or writing failed: EX_IOERR.
pub const IO: u8 = 74;
/// Trying again later may help: EX_TEMPFAIL.
pub const TEMPORARY: u8 = 75;
/// A privilege is missing: EX_NOPERM.
pub const NO_PERMISSION: u8 = 77;

/// An error that knows with which code the process ends.
#[derive(Debug)]
struct Coded {
    code: u8,
    error: anyhow::Error,
}

impl std::fmt::Display for Coded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for Coded {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error.source()
    }
}

/// Gives an error the code with which the process shall end.
pub fn coded(code: u8, error: impl Into<anyhow::Error>) -> anyhow::Error {
    anyhow::Error::new(Coded { code, error: error.into() })
}

/// The code with which the process ends for this error: what [`coded`] gave it or what its kind says, and
/// [`SOFTWARE`] when nothing is known.
pub fn code_of(error: &anyhow::Error) -> u8 {
    for cause in error.chain() {
        if let Some(coded) = cause.downcast_ref::<Coded>() {
            return coded.code;
        }
        if let Some(config) = cause.downcast_ref::<ConfigError>() {
            return config.exit_code();
        }
        if let Some(file) = cause.downcast_ref::<FileError>() {
            return file.exit_code();
        }
        if let Some(drain) = cause.downcast_ref::<DrainError>() {
            return drain.exit_code();
        }
    }
    SOFTWARE
}

/// The top of a program: runs `main` and turns its error into one line on standard error, `PROGRAM: error: ...`, and an
/// exit code. What `--help` and `--version` say goes to standard output with code 0.
pub fn run(program: &str, main: impl FnOnce() -> anyhow::Result<()>) -> ExitCode {
    let Err(error) = main() else {
        return ExitCode::SUCCESS;
    };
    if let Some(ConfigError::Said { text }) = error.downcast_ref::<ConfigError>() {
        // A reader that went away (`--help | head -1`) is no error.
        let _ = write!(std::io::stdout().lock(), "{text}");
        return ExitCode::SUCCESS;
    }
    let _ = writeln!(std::io::stderr().lock(), "{}", error_line(program, &error));
    ExitCode::from(code_of(&error))
}

/// The one line for an error and its causes; a cause whose text the line already holds is not repeated.
pub fn error_line(program: &str, error: &anyhow::Error) -> String {
    let mut line = format!("{program}: error: {error}");
    for cause in error.chain().skip(1) {
        let text = cause.to_string();
        if !line.contains(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
    }
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Runs a future to its end on a multi-threaded runtime of `workers` threads, or as many as there are processors. Tasks
/// and blocking calls that still run when it ends are abandoned.
///
/// # Errors
/// The future's, or when the runtime cannot start.
pub fn block_on<T>(
    workers: Option<usize>,
    future: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if let Some(workers) = workers {
        builder.worker_threads(workers.max(1));
    }
    let runtime = builder.enable_all().build().context("cannot start the runtime's threads")?;
    let result = runtime.block_on(future);
    runtime.shutdown_background();
    result
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn the_code_is_found_beneath_context() {
        let error = Err::<(), _>(coded(NO_PERMISSION, anyhow!("no"))).context("starting").unwrap_err();
        assert_eq!(code_of(&error), NO_PERMISSION);
        assert_eq!(code_of(&anyhow!("who knows")), SOFTWARE);
    }

    #[test]
    fn an_error_is_one_line_and_says_nothing_twice() {
        let error =
            anyhow!("the port\nis busy").context("cannot serve: the port\nis busy").context("starting");
        assert_eq!(error_line("p", &error), "p: error: starting: cannot serve: the port is busy");
    }

    #[test]
    fn the_runtime_runs_and_leaves_blocking_calls_behind() {
        let (_hold, blocked) = std::sync::mpsc::channel::<()>();
        let answer = block_on(Some(1), async move {
            tokio::task::spawn_blocking(move || blocked.recv());
            Ok(7)
        });
        assert_eq!(answer.unwrap(), 7);
    }
}
