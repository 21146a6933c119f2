//! The processor and its memory.

use std::path::Path;

use super::{Check, State};
use crate::device::HostMemory;
use crate::show::bytes;

/// Threads of the processor.
pub(super) fn processor() -> Check {
    match std::thread::available_parallelism() {
        Ok(threads) => Check::ok("processor", format!("{threads} threads")),
        Err(error) => {
            let found = format!("the system does not tell its threads ({error}); one is used");
            Check::not_ok("processor", State::Note, found, "--threads N sets them")
        }
    }
}

/// The host's memory; whether it is enough stands with the model.
pub(super) fn memory() -> Check {
    of(HostMemory::read(Path::new("/")))
}

fn of(memory: HostMemory) -> Check {
    if memory.available == u64::MAX {
        let found = "the system does not tell how much there is";
        return Check::not_ok("memory", State::Note, found, "--max-memory cpu=16GB sets what a run may take");
    }
    let (total, available) = (bytes(memory.total), bytes(memory.available));
    Check::ok("memory", format!("{available} of {total} can be had"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_said_or_that_nobody_tells_it() {
        let known = of(HostMemory { total: 32_000_000_000, available: 20_000_000_000 });
        assert_eq!((known.state, known.found.as_str()), (State::Ok, "20.00 GB of 32.00 GB can be had"));
        let unknown = of(HostMemory { total: u64::MAX, available: u64::MAX });
        assert!(unknown.state == State::Note && unknown.fix.is_some());
    }
}
