//! Three numbers that can be looked at while a run goes on: nothing is drawn or permuted for them.

use super::Totals;
use crate::{balance, coverage, entropy};

/// How routing looks so far; each number is defined as in the report.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Glance {
    /// Tokens counted.
    pub tokens: u64,
    /// Part of all experts of all layers that some token chose.
    pub coverage: f64,
    /// Entropy of a layer's loads over its maximum, the mean of the layers.
    pub load_entropy_normalised: f64,
    /// How far a layer's busiest expert is above an even share, over that share, the mean of the layers.
    pub max_vio: f64,
}

pub(crate) fn glance(totals: &Totals<'_>) -> Glance {
    let (layers, experts) = (totals.layers.len(), totals.geometry.experts());
    let (mut active, mut load_entropy, mut max_vio) = (0, 0.0, 0.0);
    for ordinal in 0..layers {
        let loads = totals.loads(ordinal);
        active += coverage::active(&loads);
        load_entropy += entropy::normalised(entropy::of_counts(&loads), experts);
        max_vio += balance::max_vio(&loads);
    }
    let mean = |sum: f64| sum / layers.max(1) as f64;
    Glance {
        tokens: totals.layers.first().map_or(0, |layer| layer.tokens),
        coverage: coverage::fraction(active, (layers * experts) as u64),
        load_entropy_normalised: mean(load_entropy),
        max_vio: mean(max_vio),
    }
}
