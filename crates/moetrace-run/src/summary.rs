//! Totals and metrics of a whole run; derived, so it may be rebuilt at any time.

use moetrace_metrics::MetricsReport;
use serde::{Deserialize, Serialize};

use crate::Usage;
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
    /// Shards that began again with smaller passes, for want of memory.
    #[serde(default)]
    pub halved: Vec<String>,
    /// What all of them took, from their records. Of runs on a GPU only: elsewhere the file has the same bytes each time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// What became of each data set's rows.
    pub datasets: Vec<DatasetFacts>,
    /// The numbers.
    pub metrics: MetricsReport,
}
