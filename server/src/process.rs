//! What concerns the process as a whole: its log, its panics, its limits, and how it is told to stop.

use std::io::IsTerminal;

use clap::ValueEnum;
use serde::Deserialize;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// One line an event: time, level, where, message, fields
    #[default]
    Full,
    /// The same without where
    Compact,
}

/// Sends the log to stderr. `AMPHORA_LOG` chooses what is logged, in tracing's directives.
pub fn start_log(format: LogFormat) {
    let filter = EnvFilter::try_from_env("AMPHORA_LOG").unwrap_or_else(|_| {
        EnvFilter::new("info,openraft=error,chitchat=warn,h2=warn,tonic=warn,hyper=warn")
    });
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // A log that is there already, in a test, stays.
    let _ = match format {
        LogFormat::Full => log.try_init(),
        LogFormat::Compact => log.compact().with_target(false).try_init(),
    };
}

/// A panic becomes a line of the log.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        let what = info.payload_as_str().unwrap_or("unknown");
        let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
        tracing::error!(place, thread, "bug: {what}");
        tracing::debug!("{}", std::backtrace::Backtrace::force_capture());
    }));
}

/// Raises the limit of open files to what the system allows: every connection and every data file is one.
pub fn raise_file_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls read or write the one struct they are given, which lives on this stack.
    #[allow(unsafe_code)]
    let raised = unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) == 0 && limit.rlim_cur < limit.rlim_max {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &limit) == 0
        } else {
            true
        }
    };
    if !raised {
        tracing::warn!("the limit of open files could not be raised");
    }
}

/// SIGINT and SIGTERM.
pub struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
}

impl StopSignals {
    /// Takes the signals over from the system, which would end the process at once.
    pub fn listen() -> std::io::Result<StopSignals> {
        let interrupt = signal(SignalKind::interrupt())?;
        Ok(StopSignals { interrupt, terminate: signal(SignalKind::terminate())? })
    }

    /// Waits for the next; its name.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}
