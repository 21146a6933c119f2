//! SIGINT, SIGTERM, SIGHUP and SIGUSR1 (a cluster's warning) end a run cleanly; a second one ends it at once.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::flag;
use signal_hook::iterator::Signals;

use crate::failure::code;
use crate::output;

const SIGNALS: [i32; 4] = [SIGINT, SIGTERM, SIGUSR1, SIGHUP];

/// How long a run has to break off between two layers. A process is to be gone five seconds after the signal: what
/// is still at it then ends as if it were killed, which loses no more.
const GRACE: Duration = Duration::from_millis(3_500);

const CONTINUE: &str = "interrupted: committed shards are safe; run the same command to continue";

/// Set from a signal handler.
#[derive(Debug, Clone)]
pub(crate) struct Stop {
    /// Whether to stop.
    pub(crate) asked: Arc<AtomicBool>,
    signal: Arc<AtomicUsize>,
    /// Whether nothing is being written: the first signal ends that at once.
    idle: Arc<AtomicBool>,
    /// What to say where the run is complete and only what is derived from it is being made.
    done: Arc<OnceLock<String>>,
}

impl Stop {
    /// Listens from now on.
    pub(crate) fn install() -> std::io::Result<Self> {
        let stop = Self {
            asked: Arc::default(),
            signal: Arc::default(),
            idle: Arc::new(AtomicBool::new(true)),
            done: Arc::default(),
        };
        for signal in SIGNALS {
            // The order matters: the first signal finds `asked` unset and only sets it.
            flag::register_conditional_shutdown(
                signal,
                i32::from(exit_code(signal)),
                Arc::clone(&stop.asked),
            )?;
            flag::register(signal, Arc::clone(&stop.asked))?;
            flag::register_usize(signal, Arc::clone(&stop.signal), signal as usize)?;
        }
        let mut signals = Signals::new(SIGNALS)?;
        let (idle, done) = (Arc::clone(&stop.idle), Arc::clone(&stop.done));
        std::thread::Builder::new().name("signals".into()).spawn(move || {
            let Some(signal) = signals.forever().next() else { return };
            if !idle.load(Ordering::Relaxed) {
                std::thread::sleep(GRACE);
            }
            output::tell(done.get().map_or(CONTINUE, String::as_str));
            std::process::exit(i32::from(exit_code(signal)));
        })?;
        Ok(stop)
    }

    /// Says whether nothing is being written now, as while texts are read and the model is loaded.
    pub(crate) fn set_idle(&self, idle: bool) {
        self.idle.store(idle, Ordering::Relaxed);
    }

    /// Says that the run is complete: a signal ends what follows at once, and these are its words.
    pub(crate) fn set_done(&self, words: String) {
        // Only the first counts, and there is one end of a run.
        let _ = self.done.set(words);
        self.set_idle(true);
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
