//! From totals to a report: calls the formulas, holds none.

use super::formulas::{TokenInExpert, above_chance, expected_highest_share, log_odds_z};
use super::report::{
    Keyword, OverallVocabulary, SpecialisationScore, TokenSpecialisation, VocabularyLayer, VocabularyReport,
};
use super::tables::{Ranks, Table};
use super::{KEYWORDS, LEAST_COUNT, Totals, VocabularyMetrics};
use crate::report::spread;

pub(super) fn build(metrics: &VocabularyMetrics) -> VocabularyReport {
    let (ids, tokens) = (metrics.tracked.ids(), metrics.passes.tokens());
    let of_layer = |(ordinal, layer): (usize, &moetrace_routing::LayerIndex)| VocabularyLayer {
        layer: layer.0,
        input: specialisation(&metrics.input, ordinal),
        next: specialisation(&metrics.next, ordinal),
        keywords: keywords(metrics, ordinal, tokens),
    };
    let numbers = metrics.passes.geometry().layers();
    let layers: Vec<VocabularyLayer> = numbers.iter().enumerate().map(of_layer).collect();
    let counts = metrics.input.counts[..ids.len()].to_vec();
    VocabularyReport {
        tokens,
        tracked_tokens: counts.iter().sum(),
        ids: ids.iter().map(|id| id.0).collect(),
        counts,
        input_ids: frequent(&metrics.input).count() as u64,
        next_ids: frequent(&metrics.next).count() as u64,
        overall: overall(&layers),
        layers,
    }
}

/// Tracked ids that occur often enough: where they stand, and how often they occur.
fn frequent(totals: &Totals) -> impl Iterator<Item = (usize, u64)> + '_ {
    let tracked = totals.counts.iter().take(totals.counts.len() - 1);
    tracked.copied().enumerate().filter(|&(_, count)| count >= LEAST_COUNT)
}

fn specialisation(totals: &Totals, ordinal: usize) -> TokenSpecialisation {
    let table = &totals.layers[ordinal];
    TokenSpecialisation {
        first: score(totals, table, Ranks::First),
        chosen: score(totals, table, Ranks::All),
    }
}

fn score(totals: &Totals, table: &Table, ranks: Ranks) -> SpecialisationScore {
    let tokens = totals.counts.iter().sum::<u64>() as f64;
    let shares: Vec<f64> = table.loads(ranks).iter().map(|&load| load as f64 / tokens.max(1.0)).collect();
    let most = frequent(totals).map(|(_, count)| count).max().unwrap_or(0);
    let chance = Chance::new(most, &shares);
    let (mut share, mut expected, mut above, mut ids) = (0.0, 0.0, 0.0, 0u64);
    for (slot, count) in frequent(totals) {
        let highest = table.row(slot, ranks).iter().copied().max().unwrap_or(0);
        let (of_id, by_chance) = (f64::from(highest) / count as f64, chance.at(count));
        share += of_id;
        expected += by_chance;
        above += above_chance(of_id, by_chance);
        ids += 1;
    }
    let mean = |sum: f64| sum / ids.max(1) as f64;
    SpecialisationScore { share: mean(share), expected: mean(expected), above_chance: mean(above) }
}

/// The highest share by chance, at counts that grow by the square root of 2; between them it is taken as linear in the
/// logarithm.
struct Chance(Vec<(f64, f64)>);

impl Chance {
    fn new(most: u64, shares: &[f64]) -> Self {
        let counts = (0..).map(|step| (LEAST_COUNT as f64 * (f64::from(step) / 2.0).exp2()).round() as u64);
        // One at or above the most.
        let mut points = Vec::new();
        for count in counts.take(128) {
            points.push(((count as f64).ln(), expected_highest_share(count, shares)));
            if count >= most {
                break;
            }
        }
        Self(points)
    }

    fn at(&self, count: u64) -> f64 {
        let x = (count as f64).ln();
        let after = self.0.partition_point(|&(at, _)| at < x).clamp(1, self.0.len().max(2) - 1);
        match (self.0.get(after - 1), self.0.get(after)) {
            (Some(&(x0, y0)), Some(&(x1, y1))) => y0 + (y1 - y0) * ((x - x0) / (x1 - x0)),
            (Some(&(_, y)), None) => y,
            _ => 0.0,
        }
    }
}

/// What each expert of a layer stands out by, `[E]`.
fn keywords(metrics: &VocabularyMetrics, ordinal: usize, tokens: u64) -> Vec<Vec<Keyword>> {
    let table = &metrics.input.layers[ordinal];
    let loads = table.loads(Ranks::All);
    let mut all: Vec<Vec<Keyword>> = vec![Vec::new(); loads.len()];
    for (slot, occurs) in frequent(&metrics.input) {
        let token = metrics.tracked.ids()[slot].0;
        for ((&count, &load), best) in table.row(slot, Ranks::All).iter().zip(&loads).zip(&mut all) {
            let count = u64::from(count);
            let z = log_odds_z(TokenInExpert { chosen: count, occurs, load, tokens }) as f32;
            if z > 0.0 && (best.len() < KEYWORDS || best.last().is_some_and(|last| z > last.z)) {
                // Equal ones keep the order of ids.
                let at = best.partition_point(|other| other.z >= z);
                best.insert(at, Keyword { token, count, z });
                best.truncate(KEYWORDS);
            }
        }
    }
    all
}

fn overall(layers: &[VocabularyLayer]) -> OverallVocabulary {
    let of = |value: fn(&VocabularyLayer) -> f64| spread(layers.iter().map(value));
    OverallVocabulary {
        input_first: of(|l| l.input.first.share),
        input_first_above_chance: of(|l| l.input.first.above_chance),
        input_chosen_above_chance: of(|l| l.input.chosen.above_chance),
        next_first: of(|l| l.next.first.share),
        next_first_above_chance: of(|l| l.next.first.above_chance),
        next_chosen_above_chance: of(|l| l.next.chosen.above_chance),
    }
}
