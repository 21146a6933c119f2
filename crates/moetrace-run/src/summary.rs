//! Totals and metrics of a whole run; derived, so it may be rebuilt at any time.

use moetrace_metrics::MetricsReport;
use serde::{Deserialize, Serialize};

use crate::manifest::DatasetFacts;

/// `summary.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Summary {
    /// The plan it belongs to.
    pub plan_hash: String,
    /// Shards, all committed.
    pub shards: usize,
    /// Samples recorded.
    pub samples: u64,
    /// Tokens recorded, BOS included.
    pub tokens: u64,
    /// Bytes of all shard files.
    pub bytes: u64,
    /// What became of each data set's rows.
    pub datasets: Vec<DatasetFacts>,
    /// The numbers.
    pub metrics: MetricsReport,
}
