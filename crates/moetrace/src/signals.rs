//! SIGINT, SIGTERM, SIGHUP and SIGUSR1 (a cluster's warning) end a run cleanly; a second one ends it at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::flag;

use crate::failure::code;

/// Set from a signal handler.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stop {
    /// Whether to stop.
    pub(crate) asked: Arc<AtomicBool>,
    signal: Arc<AtomicUsize>,
}

impl Stop {
    /// Listens from now on.
    pub(crate) fn install() -> std::io::Result<Self> {
        let stop = Self::default();
        for signal in [SIGINT, SIGTERM, SIGUSR1, SIGHUP] {
            // The order matters: the first signal finds `asked` unset and only sets it.
            flag::register_conditional_shutdown(
                signal,
                i32::from(exit_code(signal)),
                Arc::clone(&stop.asked),
            )?;
            flag::register(signal, Arc::clone(&stop.asked))?;
            flag::register_usize(signal, Arc::clone(&stop.signal), signal as usize)?;
        }
        Ok(stop)
    }

    /// The exit code of the signal that came.
    pub(crate) fn exit_code(&self) -> u8 {
        exit_code(self.signal.load(Ordering::Relaxed) as i32)
    }
}

/// A preempted job (SIGUSR1, SIGHUP) is to be run again; the others end as shells expect.
fn exit_code(signal: i32) -> u8 {
    match signal {
        SIGINT => 130,
        SIGTERM => 143,
        _ => code::LATER,
    }
}
