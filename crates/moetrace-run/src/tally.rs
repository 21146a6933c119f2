//! What a call has done so far, and who is told.

use moetrace_metrics::RoutingMetrics;

use crate::write::Committed;
use crate::{RunError, RunEvent, Usage};

/// Shards that count, in their order.
pub(crate) struct Tally<'a> {
    on_event: &'a mut dyn FnMut(RunEvent<'_>),
    /// Shards this call committed.
    pub(crate) written: usize,
    /// Bytes of all shards, also of those that were there.
    pub(crate) bytes: u64,
    /// What those that this call committed took.
    pub(crate) usage: Option<Usage>,
    /// Numbers over them all.
    pub(crate) total: RoutingMetrics,
}

impl<'a> Tally<'a> {
    pub(crate) fn new(total: RoutingMetrics, on_event: &'a mut dyn FnMut(RunEvent<'_>)) -> Self {
        Self { on_event, written: 0, bytes: 0, usage: None, total }
    }

    pub(crate) fn tell(&mut self, event: RunEvent<'_>) {
        (self.on_event)(event);
    }

    /// Counts a shard that this call committed.
    pub(crate) fn committed(&mut self, shard: Committed) -> Result<(), RunError> {
        self.written += 1;
        self.usage = self.usage.into_iter().chain(shard.record.usage).reduce(Usage::and);
        self.count(shard.record.bytes(), shard.metrics)?;
        let so_far = self.total.glance();
        self.tell(RunEvent::Committed { record: &shard.record, so_far });
        Ok(())
    }

    /// Counts a shard.
    pub(crate) fn count(&mut self, bytes: u64, metrics: RoutingMetrics) -> Result<(), RunError> {
        self.bytes += bytes;
        Ok(self.total.merge(metrics)?)
    }
}
