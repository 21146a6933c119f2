//! What a report is made of: plain values, so that whoever has numbers can draw them.

use std::collections::BTreeMap;

use moetrace_metrics::MetricsReport;
use moetrace_metrics::fidelity::FidelityReport;

/// One run, or two side by side.
#[derive(Debug, Clone, Copy)]
pub struct ReportInput<'a> {
    /// The run that the page is about.
    pub run: &'a ReportedRun,
    /// A second one to hold beside it, of any model.
    pub other: Option<&'a ReportedRun>,
    /// How often the second routed like the first; absent unless both ran over the same tokens.
    pub fidelity: Option<&'a FidelityReport>,
}

/// A run's numbers and where they come from.
#[derive(Debug, Clone, PartialEq)]
pub struct ReportedRun {
    /// What the run is called: its folder, or a name of the user's.
    pub name: String,
    /// The model's name as the user gave it.
    pub model: String,
    /// Facts about model, computation and tokens, in the order they are shown.
    pub facts: Vec<Fact>,
    /// Settings with their values and who set them.
    pub settings: Vec<Fact>,
    /// The data sets as they were sampled.
    pub datasets: Vec<DatasetFacts>,
    /// What a reader must know before the numbers, such as shards that are missing.
    pub notes: Vec<String>,
    /// The numbers.
    pub metrics: MetricsReport,
    /// Strings of token ids; empty where a run keeps none.
    pub tokens: BTreeMap<u32, String>,
}

/// A name and a value, both shown as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    /// What it is.
    pub name: String,
    /// The value.
    pub value: String,
    /// Who said so; empty where that goes without saying.
    pub source: String,
}

impl Fact {
    /// A fact without a source.
    pub fn new(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self { name: name.into(), value: value.into(), source: String::new() }
    }
}

/// One data set as it was sampled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatasetFacts {
    /// Its name.
    pub name: String,
    /// Rows read.
    pub rows_seen: u64,
    /// Texts recorded.
    pub samples: u64,
    /// Tokens recorded, BOS included.
    pub tokens: u64,
    /// Texts cut at the length limit.
    pub truncated: u64,
    /// Rows left out, with the reason.
    pub skipped: Vec<(String, u64)>,
}
