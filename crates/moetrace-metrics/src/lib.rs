//! In: routing views, live from a model or replayed from files, through [`moetrace_routing::RoutingSink`].
//! Out: a [`MetricsReport`]: load, coverage, entropy, balance, pairs, ties, specialisation, per layer and overall;
//! and of two runs over the same tokens a [`FidelityReport`](fidelity::FidelityReport).
//! Holds: every formula once, as a function of counts, and the mergeable totals they are computed from.
//! Not here: models, files, rendering; no I/O, no threads, no clock, no environment.
//!
//! Totals are integers throughout (real-valued sums are kept in fixed point), so that folding the same tokens in
//! any split and any merge order gives the same report to the last bit. `docs/metrics.md` has the formulas with
//! their sources, units and edge cases.

#![cfg_attr(
    test,
    expect(clippy::float_cmp, reason = "closed forms that come out exact are asserted exactly")
)]

pub mod affinity;
mod auxiliary_loss;
pub mod balance;
mod capped_histogram;
pub mod cards;
pub mod clustering;
pub mod coactivation;
pub mod contexts;
pub mod contingency;
pub mod coverage;
pub mod cross_layer;
pub mod domain;
pub mod entropy;
mod error;
pub mod esft;
mod expert_counts;
pub mod fidelity;
mod fixed_sum;
pub mod groups;
mod joint_counts;
mod kept_rows;
mod metrics_set;
pub mod pairs;
mod pass_order;
mod passes;
mod random;
mod report;
mod routing_metrics;
mod sample_subset;
pub mod segments;
pub mod temporal;
pub mod vocabulary;

pub use auxiliary_loss::{AuxiliaryLossMetrics, AuxiliaryLossReport, LayerAuxiliaryLoss};
pub use clustering::Clustering;
pub use coactivation::{CoactivationMetrics, CoactivationReport};
pub use contexts::{ContextMetrics, ContextsReport};
pub use cross_layer::{CrossLayerMetrics, CrossLayerReport};
pub use error::MetricsError;
pub use expert_counts::{ExpertCounts, ExpertCountsReport, LayerCounts};
pub use fixed_sum::LARGEST_TERM;
pub use groups::{GroupBy, GroupMetrics, GroupsReport};
pub use metrics_set::{FullReport, MetricsFamilies, MetricsSet};
pub use report::{
    CoverageCurve, CurvePoint, DatasetLayerReport, DatasetReport, EsftScores, ExpertShare, ExpertsAtLeast,
    Glance, GuideView, LayerReport, LoadShape, MetricsReport, OverallReport, Specialisation, Spread,
};
pub use routing_metrics::{MetricsSettings, RoutingMetrics};
pub use segments::{SegmentMetrics, SegmentReport};
pub use temporal::{TemporalMetrics, TemporalReport};
pub use vocabulary::{TokenCounts, TrackedTokens, VocabularyMetrics, VocabularyReport};
