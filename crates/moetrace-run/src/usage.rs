//! What carrying out a run takes: memory at most, and what became of the time.

use moetrace_model::EngineUsage;
use serde::{Deserialize, Serialize};

/// What a shard or a run took. Memory is the most that was seen, time is summed up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Bytes of device memory, without the driver's own; 0 on a processor.
    pub device_bytes: u64,
    /// Bytes of page-locked host memory.
    pub host_bytes: u64,
    /// Bytes of the process that lay in memory; 0 where nobody told.
    pub resident_bytes: u64,
    /// Microseconds of passes on the device, those of attempts that were given up too.
    pub passes_us: u64,
    /// Those of them in which nothing could go on before weights or hidden states had come.
    pub waited_us: u64,
    /// Microseconds by the clock; 0 where nobody told.
    pub elapsed_us: u64,
}

/// What the engine does not know: the process and the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ProcessUsage {
    /// Most bytes of the process that lay in memory so far.
    pub resident_bytes: u64,
    /// Microseconds since any moment that stays the same.
    pub elapsed_us: u64,
}

impl Usage {
    /// What an engine and its process hold and did since they began.
    pub fn new(engine: &EngineUsage, process: ProcessUsage) -> Self {
        // A number below zero, or none, becomes 0.
        let micros = |ms: f64| (ms * 1e3) as u64;
        Self {
            device_bytes: engine.device_bytes,
            host_bytes: engine.host_bytes,
            resident_bytes: process.resident_bytes,
            passes_us: micros(engine.passes_ms),
            waited_us: micros(engine.waited_ms),
            elapsed_us: process.elapsed_us,
        }
    }

    /// This and what came after it.
    #[must_use]
    pub fn and(self, later: Self) -> Self {
        Self {
            device_bytes: self.device_bytes.max(later.device_bytes),
            host_bytes: self.host_bytes.max(later.host_bytes),
            resident_bytes: self.resident_bytes.max(later.resident_bytes),
            passes_us: self.passes_us.saturating_add(later.passes_us),
            waited_us: self.waited_us.saturating_add(later.waited_us),
            elapsed_us: self.elapsed_us.saturating_add(later.elapsed_us),
        }
    }

    /// Share of the time in which the device was in a pass, 0 to 1; `None` without clock or device.
    pub fn utilisation(&self) -> Option<f64> {
        (self.passes_us > 0 && self.elapsed_us > 0).then(|| self.passes_us as f64 / self.elapsed_us as f64)
    }

    /// Share of the passes' time in which the device waited for copies, 0 to 1; `None` without a device.
    pub fn waiting(&self) -> Option<f64> {
        (self.passes_us > 0).then(|| self.waited_us as f64 / self.passes_us as f64)
    }
}

/// Reads what both tell, from shard to shard.
pub(crate) struct Meter<'a> {
    process: Option<&'a dyn Fn() -> ProcessUsage>,
    /// The last reading: what is done since belongs to the next shard.
    before: Option<Usage>,
    /// Most bytes seen since, on the device and page-locked. An engine that halves its passes holds less afterwards.
    most: (u64, u64),
}

impl<'a> Meter<'a> {
    pub(crate) fn new(process: Option<&'a dyn Fn() -> ProcessUsage>) -> Self {
        Self { process, before: None, most: (0, 0) }
    }

    /// The first shard begins here; a later one began where the one before it ended.
    pub(crate) fn begin(&mut self, engine: &EngineUsage) {
        let now = self.read(engine);
        self.before.get_or_insert(now);
    }

    /// Looks at what is held.
    pub(crate) fn look(&mut self, engine: &EngineUsage) {
        self.most.0 = self.most.0.max(engine.device_bytes);
        self.most.1 = self.most.1.max(engine.host_bytes);
    }

    /// What was taken since the last lap; `None` if there is nobody to tell.
    pub(crate) fn lap(&mut self, engine: &EngineUsage) -> Option<Usage> {
        self.look(engine);
        let now = self.read(engine);
        let before = self.before.replace(now).unwrap_or(now);
        let (device_bytes, host_bytes) = std::mem::take(&mut self.most);
        let taken = Usage {
            device_bytes,
            host_bytes,
            resident_bytes: now.resident_bytes,
            passes_us: now.passes_us.saturating_sub(before.passes_us),
            waited_us: now.waited_us.saturating_sub(before.waited_us),
            elapsed_us: now.elapsed_us.saturating_sub(before.elapsed_us),
        };
        (taken != Usage::default()).then_some(taken)
    }

    fn read(&self, engine: &EngineUsage) -> Usage {
        Usage::new(engine, self.process.map_or_else(ProcessUsage::default, |process| process()))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn engine(device_bytes: u64, passes_ms: f64, waited_ms: f64) -> EngineUsage {
        EngineUsage { device_bytes, host_bytes: device_bytes / 2, passes_ms, waited_ms }
    }

    #[test]
    fn a_lap_is_what_was_done_since_the_last_and_the_most_that_was_held() {
        let clock = Cell::new(1_000);
        let process = || ProcessUsage { resident_bytes: 7, elapsed_us: clock.get() };
        let mut meter = Meter::new(Some(&process));
        meter.begin(&engine(10, 5.0, 0.0));
        clock.set(11_000);
        meter.look(&engine(20, 9.0, 1.0));
        let first = meter.lap(&engine(10, 13.0, 2.0)).unwrap();
        let expected = Usage {
            device_bytes: 20,
            host_bytes: 10,
            resident_bytes: 7,
            passes_us: 8_000,
            waited_us: 2_000,
            elapsed_us: 10_000,
        };
        assert_eq!(first, expected);
        // What lies between two shards counts as time too.
        clock.set(21_000);
        meter.begin(&engine(10, 13.0, 2.0));
        let second = meter.lap(&engine(10, 15.0, 2.0)).unwrap();
        assert_eq!((second.device_bytes, second.passes_us, second.elapsed_us), (10, 2_000, 10_000));
        let both = first.and(second);
        assert_eq!((both.device_bytes, both.utilisation(), both.waiting()), (20, Some(0.5), Some(0.2)));
    }

    #[test]
    fn an_engine_that_tells_nothing_without_a_clock_has_no_usage() {
        let mut meter = Meter::new(None);
        meter.begin(&EngineUsage::default());
        assert_eq!(meter.lap(&EngineUsage::default()), None);
        assert_eq!((Usage::default().utilisation(), Usage::default().waiting()), (None, None));
    }
}
