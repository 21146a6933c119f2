//! From totals to a report: calls the formulas, holds none.

use moetrace_routing::Name;

use super::equalised::{SampleLoads, equalise};
use super::kept::{GroupKey, GroupTotals};
use super::report::{GroupLayerReport, GroupReport, GroupsReport, InformationNull, OverallGroups};
use super::{GroupBy, GroupMetrics, MOST_LABELS, SampleCounts};
use crate::domain::{self, LabelledSample, PermutationNull};
use crate::sample_subset::{KeptSample, Place, SampleSubset};
use crate::{ExpertShare, contingency, report::spread, temporal::bucket_start};

/// A group that is told apart, or all other labels of a data set.
struct Row {
    dataset: Option<Name>,
    label: Option<Name>,
    from: Option<u64>,
    rest: bool,
    /// Its data set, where labels are grouped by.
    stratum: usize,
    totals: GroupTotals,
}

impl Row {
    fn joint(rows: &[Self], ordinal: usize, experts: usize) -> Vec<u64> {
        rows.iter().flat_map(|row| &row.totals.loads[ordinal * experts..][..experts]).copied().collect()
    }

    fn report(&self, experts: usize) -> GroupReport {
        GroupReport {
            dataset: self.dataset.as_ref().map(ToString::to_string),
            label: self.label.as_ref().map(ToString::to_string),
            from: self.from,
            rest: self.rest,
            samples: self.totals.samples,
            tokens: self.totals.tokens,
            bos_excluded: self.totals.bos_excluded,
            loads: self.totals.loads.chunks_exact(experts).map(<[u64]>::to_vec).collect(),
        }
    }
}

pub(super) fn build(metrics: &GroupMetrics) -> GroupsReport {
    let geometry = metrics.passes.geometry();
    let (experts, numbers) = (geometry.experts(), geometry.layers());
    let rows = rows(metrics);
    let tokens = rows.iter().map(|row| row.totals.tokens).sum();
    let comparable = rows.iter().filter(|row| row.totals.tokens > 0).count() >= 2;
    let nulls = if comparable { nulls(metrics, &rows) } else { Vec::new() };
    let of_layer = |(ordinal, layer): (usize, &moetrace_routing::LayerIndex)| {
        let within = metrics.by == GroupBy::Label;
        layer_report(&rows, (ordinal, layer.0), experts, within, nulls.get(ordinal).copied())
    };
    let layers: Vec<GroupLayerReport> = numbers.iter().enumerate().map(of_layer).collect();
    let numbers: Vec<u16> = numbers.iter().map(|layer| layer.0).collect();
    let equalised = equalise(&samples_of(metrics, &rows), &numbers, experts);
    let (distinct_groups, distinct_groups_estimated) = metrics.groups.distinct();
    let of_equalised = |e: &super::EqualisedSamples| spread(e.layers.iter().map(|l| l.information_bits));
    let overall = comparable.then(|| OverallGroups {
        equalised_information_bits: equalised.as_ref().map(of_equalised),
        ..overall(&layers)
    });
    GroupsReport {
        by: metrics.by,
        tokens,
        ungrouped_tokens: metrics.passes.tokens() - tokens,
        distinct_groups,
        distinct_groups_estimated,
        jensen_shannon_bits: pairwise(&rows, experts),
        groups: rows.iter().map(|row| row.report(experts)).collect(),
        layers,
        equalised,
        overall,
    }
}

fn rows(metrics: &GroupMetrics) -> Vec<Row> {
    let datasets: Vec<&Name> = metrics.labelled.keys().collect();
    let mut rows: Vec<Row> = Vec::new();
    for (key, totals) in metrics.groups.all() {
        let (dataset, label, from) = match key {
            GroupKey::Dataset(dataset) => (Some(dataset), None, None),
            GroupKey::Label { dataset, label, .. } => (Some(dataset), Some(label), None),
            GroupKey::Position(bucket) => (None, None, Some(bucket_start(*bucket))),
        };
        let stratum = dataset.and_then(|name| datasets.binary_search(&name).ok()).unwrap_or(0);
        let (dataset, label, totals) = (dataset.cloned(), label.cloned(), totals.clone());
        rows.push(Row { dataset, label, from, rest: false, stratum, totals });
    }
    if metrics.by == GroupBy::Label {
        let name = |row: &Row| (row.dataset.clone(), row.label.clone());
        rows.sort_by(|a, b| b.totals.tokens.cmp(&a.totals.tokens).then_with(|| name(a).cmp(&name(b))));
        rows.truncate(MOST_LABELS);
        rows.sort_by_key(name);
    }
    for (stratum, (dataset, all)) in metrics.labelled.iter().enumerate() {
        let mut totals = all.clone();
        rows.iter().filter(|row| row.stratum == stratum).for_each(|row| totals.subtract(&row.totals));
        if totals.samples > 0 {
            let dataset = Some(dataset.clone());
            rows.push(Row { dataset, label: None, from: None, rest: true, stratum, totals });
        }
    }
    rows
}

/// The row that a kept sample belongs to.
fn row_of(by: GroupBy, rows: &[Row], place: &Place, sample: &KeptSample<SampleCounts>) -> Option<usize> {
    let label = &sample.kept.label;
    if by == GroupBy::Label && label.is_none() {
        return None;
    }
    let of_dataset = |row: &Row| row.dataset.as_ref() == Some(&place.dataset);
    let named = rows.iter().position(|row| of_dataset(row) && !row.rest && row.label == *label);
    named.or_else(|| rows.iter().position(|row| of_dataset(row) && row.rest))
}

/// The kept samples of each row, for the comparison of equal numbers of tokens.
fn samples_of<'a>(metrics: &'a GroupMetrics, rows: &[Row]) -> Vec<Vec<SampleLoads<'a>>> {
    let mut groups = vec![Vec::new(); rows.len()];
    let kept = metrics.first_samples.values().flat_map(SampleSubset::samples);
    // Labels are many and short of tokens: theirs are those of the subset.
    let labelled = metrics.subset.samples().filter(|_| metrics.by == GroupBy::Label);
    for (place, sample) in kept.chain(labelled) {
        if let Some(row) = row_of(metrics.by, rows, place, sample) {
            groups[row].push((sample.tokens, sample.kept.counts.as_slice()));
        }
    }
    groups
}

fn nulls(metrics: &GroupMetrics, rows: &[Row]) -> Vec<InformationNull> {
    let (mut labelled, mut tokens) = (Vec::new(), 0);
    for (place, sample) in metrics.subset.samples() {
        if let Some(group) = row_of(metrics.by, rows, place, sample) {
            labelled.push(LabelledSample { group, counts: &sample.kept.counts });
            tokens += sample.tokens;
        }
    }
    if labelled.is_empty() {
        return Vec::new();
    }
    let strata: Vec<usize> = rows.iter().map(|row| row.stratum).collect();
    let (geometry, seed) = (metrics.passes.geometry(), metrics.passes.settings().seed);
    let nulls =
        domain::permutation_null(&labelled, &strata, geometry.layers().len(), geometry.experts(), seed);
    let of_layer = |null: PermutationNull| InformationNull {
        samples: labelled.len() as u64,
        tokens,
        observed_bits: null.observed_bits,
        draws: domain::NULL_DRAWS as u32,
        mean_bits: null.mean_bits,
        percentile_95_bits: null.percentile_95_bits,
        max_bits: null.max_bits,
        z: null.z,
    };
    nulls.into_iter().map(of_layer).collect()
}

fn layer_report(
    rows: &[Row],
    (ordinal, layer): (usize, u16),
    experts: usize,
    within: bool,
    null: Option<InformationNull>,
) -> GroupLayerReport {
    let joint = Row::joint(rows, ordinal, experts);
    let strata: Vec<usize> = rows.iter().map(|row| row.stratum).collect();
    let each: Vec<&[u64]> = joint.chunks_exact(experts).collect();
    GroupLayerReport {
        layer,
        mutual_information_bits: domain::mutual_information(&joint, experts),
        information_within_datasets_bits: within
            .then(|| domain::information_within(&joint, experts, &strata)),
        group_entropy_bits: domain::row_entropy(&joint, experts),
        independent_information_bits: contingency::independent_information(&joint, experts),
        chi_square: contingency::chi_square(&joint, experts),
        cramers_v: contingency::cramers_v(&joint, experts),
        cramers_v_corrected: contingency::cramers_v_corrected(&joint, experts),
        jensen_shannon_bits: domain::jensen_shannon(&each),
        null,
    }
}

fn pairwise(rows: &[Row], experts: usize) -> Vec<f64> {
    let mut all = Vec::new();
    for (i, a) in rows.iter().enumerate() {
        for b in &rows[i + 1..] {
            let layers = a.totals.loads.chunks_exact(experts).zip(b.totals.loads.chunks_exact(experts));
            all.push(spread(layers.map(|(a, b)| domain::jensen_shannon(&[a, b]))).mean);
        }
    }
    all
}

fn overall(layers: &[GroupLayerReport]) -> OverallGroups {
    let of = |value: fn(&GroupLayerReport) -> f64| spread(layers.iter().map(value));
    let of_known = |value: fn(&GroupLayerReport) -> Option<f64>| {
        let known: Option<Vec<f64>> = layers.iter().map(value).collect();
        known.map(|values| spread(values.into_iter()))
    };
    OverallGroups {
        mutual_information_bits: of(|l| l.mutual_information_bits),
        information_within_datasets_bits: of_known(|l| l.information_within_datasets_bits),
        cramers_v_corrected: of(|l| l.cramers_v_corrected),
        jensen_shannon_bits: of(|l| l.jensen_shannon_bits),
        null_mean_bits: of_known(|l| l.null.map(|null| null.mean_bits)),
        equalised_information_bits: None,
    }
}

/// The experts that a group prefers most, at most `most` of them: those with the highest share of the group's tokens
/// over the share of all tokens, ties to the lower id. `loads` and `all` are tokens that chose each expert, `[E]`, of
/// the group and of all groups together, and `chosen` is K.
pub fn top_experts(loads: &[u64], all: &[u64], chosen: usize, most: usize) -> Vec<ExpertShare> {
    // K slots a token: a share of tokens is K times a share of slots.
    let tokens = |loads: &[u64]| loads.iter().sum::<u64>() as f64 / chosen as f64;
    let (own_tokens, all_tokens) = (tokens(loads), tokens(all));
    let shares = loads.iter().zip(all).enumerate().filter(|&(_, (&own, _))| own > 0);
    let mut shares: Vec<ExpertShare> = shares
        .map(|(expert, (&own, &all))| {
            let share = own as f64 / own_tokens;
            ExpertShare { expert: expert as u16, share, ratio: share / (all as f64 / all_tokens) }
        })
        .collect();
    shares.sort_by(|a, b| b.ratio.total_cmp(&a.ratio).then(a.expert.cmp(&b.expert)));
    shares.truncate(most);
    shares
}
