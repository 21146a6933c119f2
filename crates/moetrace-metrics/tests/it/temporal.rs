use std::collections::{BTreeMap, BTreeSet};

use moetrace_metrics::temporal::{LayerTemporal, WORKING_SET_WINDOWS, lru_hit_rate};
use moetrace_metrics::{MetricsError, MetricsSettings, TemporalMetrics, TemporalReport};
use proptest::prelude::*;

use crate::text::{Split, Text, any_long_texts, constant_text, counted_sets, geometry, play, renamed};

const E: usize = 7;
const K: usize = 3;

fn fold(e: usize, k: usize, texts: &[Text]) -> TemporalReport {
    let geometry = geometry(e, k, texts[0].choices.len() as u16);
    let mut metrics = TemporalMetrics::new(&geometry, &MetricsSettings::default());
    for text in texts {
        play(&geometry, &[text], &mut metrics).unwrap();
    }
    metrics.report()
}

/// A text of one layer.
fn text(sets: &[&[u16]]) -> Text {
    let mut text = constant_text("a", 0, sets.len(), 1, sets[0]);
    text.choices[0].iter_mut().zip(sets).for_each(|(choice, set)| choice.experts = set.to_vec());
    text
}

fn shared(a: &[u16], b: &[u16]) -> usize {
    a.iter().filter(|id| b.contains(id)).count()
}

fn close(found: f64, part: usize, whole: usize) -> bool {
    (found - part as f64 / whole.max(1) as f64).abs() < 1e-12
}

/// Hits of one LRU cache, kept as a list with the most recent first; look-ups that miss every cache.
fn play_cache(sequences: &[(usize, Vec<Vec<u16>>)], size: usize) -> usize {
    let mut hits = 0;
    for (_, sets) in sequences {
        let mut cache: Vec<u16> = Vec::new();
        for set in sets {
            hits += shared(set, &cache);
            cache.retain(|id| !set.contains(id));
            cache.splice(0..0, set.iter().copied());
            cache.truncate(size);
        }
    }
    hits
}

fn check_pairs(layer: &LayerTemporal, sequences: &[(usize, Vec<Vec<u16>>)]) {
    for (lag, &reuse) in (1..).zip(&layer.lag_reuse) {
        let pairs = || sequences.iter().flat_map(|(_, sets)| sets.iter().zip(sets.iter().skip(lag)));
        let common = pairs().map(|(a, b)| shared(a, b)).sum::<usize>();
        assert!(close(reuse, common, K * pairs().count()), "lag {lag}");
        if lag == 1 {
            assert!(close(layer.reuse, common, K * pairs().count()));
            assert!(close(
                layer.rank_1_repeats,
                pairs().filter(|(a, b)| a[0] == b[0]).count(),
                pairs().count()
            ));
            let first_two = pairs().filter(|(a, b)| shared(&a[..2], &b[..2]) > 0).count();
            assert!(close(layer.first_two_repeats, first_two, pairs().count()));
        }
    }
    let mut transitions = vec![0u64; E * E];
    for (a, b) in sequences.iter().flat_map(|(_, sets)| sets.iter().zip(sets.iter().skip(1))) {
        for i in a {
            for j in b {
                transitions[usize::from(*i) * E + usize::from(*j)] += 1;
            }
        }
    }
    assert_eq!(layer.transition_counts, transitions);
    let kept: u64 = (0..E).map(|e| transitions[e * E + e]).sum();
    assert!(close(layer.reuse, kept as usize, transitions.iter().sum::<u64>() as usize / K));
}

fn check_runs_and_windows(layer: &LayerTemporal, sequences: &[(usize, Vec<Vec<u16>>)]) {
    let mut runs = BTreeMap::new();
    for (_, sets) in sequences {
        for expert in 0..E as u16 {
            let uses: Vec<bool> = sets.iter().map(|set| set.contains(&expert)).collect();
            for run in uses.split(|used| !used).filter(|run| !run.is_empty()) {
                *runs.entry(run.len()).or_insert(0u64) += 1;
            }
        }
    }
    let (number, tokens) = (runs.values().sum::<u64>(), runs.iter().map(|(len, n)| *len * *n as usize).sum());
    assert_eq!(layer.runs.runs, number);
    assert!(close(layer.runs.mean, tokens, number as usize));
    for (length, &found) in (1..).zip(&layer.runs.lengths) {
        assert_eq!(found, runs.get(&length).copied().unwrap_or(0));
    }
    assert_eq!(layer.runs.longer, runs.range(65..).map(|(_, n)| n).sum::<u64>());
    for (found, window) in layer.working_sets.iter().zip(WORKING_SET_WINDOWS) {
        let windows = || sequences.iter().flat_map(|(_, sets)| sets.windows(window));
        let distinct: usize =
            windows().map(|sets| sets.iter().flatten().collect::<BTreeSet<_>>().len()).sum();
        assert_eq!((found.window, found.windows), (window, windows().count() as u64));
        assert!((found.experts - distinct as f64 / windows().count().max(1) as f64).abs() < 1e-9);
    }
}

fn check_caches(layer: &LayerTemporal, sequences: &[(usize, Vec<Vec<u16>>)]) {
    let lookups = sequences.iter().map(|(_, sets)| K * sets.len()).sum::<usize>();
    let distinct = |sets: &Vec<Vec<u16>>| sets.iter().flatten().collect::<BTreeSet<_>>().len();
    let lru = &layer.lru;
    assert_eq!(lru.lookups, lookups as u64);
    assert_eq!(lru.cold_misses, sequences.iter().map(|(_, sets)| distinct(sets) as u64).sum::<u64>());
    let mut below = 0.0;
    for size in 1..=E {
        let distances: Vec<u64> = [lru.cold_misses].iter().chain(&lru.distances).copied().collect();
        let rate = lru_hit_rate(&distances, size);
        assert!(close(rate, play_cache(sequences, size), lookups), "size {size}");
        assert!(rate >= below);
        below = rate;
    }
    // A cache of all experts misses what it never saw, nothing else.
    assert!(close(below, lookups - lru.cold_misses as usize, lookups));
    // A bucket ends at twice its beginning.
    let at = |from: u64, position: usize| (from..(2 * from).max(1)).contains(&(position as u64));
    for place in &layer.positions {
        let tokens = || {
            sequences.iter().flat_map(|(first, sets)| {
                let before = [None].into_iter().chain(sets.iter().map(Some));
                sets.iter().zip(before).zip(*first..)
            })
        };
        let here = || tokens().filter(|(_, position)| at(place.from, *position));
        assert_eq!(place.tokens, here().count() as u64);
        let pairs = || here().filter_map(|((set, before), _)| Some((set, before?)));
        let common = pairs().map(|(set, before)| shared(set, before)).sum();
        assert!(close(place.reuse, common, K * pairs().count()));
    }
    assert_eq!(layer.positions.iter().map(|p| p.tokens).sum::<u64>() as usize * K, lookups);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn every_number_equals_that_of_its_definition(texts in any_long_texts(E, K, 2)) {
        let report = fold(E, K, &texts);
        for (ordinal, layer) in report.layers.iter().enumerate() {
            let sequences = counted_sets(&texts, ordinal);
            prop_assert_eq!(report.tokens, sequences.iter().map(|(_, sets)| sets.len() as u64).sum::<u64>());
            check_pairs(layer, &sequences);
            check_runs_and_windows(layer, &sequences);
            check_caches(layer, &sequences);
            let affinity = layer.transitions.as_ref().unwrap();
            prop_assert!((-1e-12..=1.0 + 1e-9).contains(&affinity.information_share));
        }
    }

    #[test]
    fn any_split_merged_in_any_order_gives_the_same_report(
        texts in any_long_texts(E, K, 2),
        parts in proptest::collection::vec(0usize..3, 6),
        order in Just([0usize, 1, 2]).prop_shuffle(),
        pass_len in 1usize..4,
    ) {
        let split = Split { texts: &texts, parts: &parts, order, pass_len };
        let merged = split.merged(&geometry(E, K, 2), TemporalMetrics::new, TemporalMetrics::merge);
        prop_assert_eq!(merged.report(), fold(E, K, &texts));
    }

    #[test]
    fn renaming_the_experts_changes_no_number_but_their_order(
        texts in any_long_texts(E, K, 1),
        names in Just((0..E as u16).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let (a, b) = (fold(E, K, &texts), fold(E, K, &renamed(&texts, &names)));
        let (a, b) = (&a.layers[0], &b.layers[0]);
        prop_assert_eq!(&a.lag_reuse, &b.lag_reuse);
        prop_assert_eq!((&a.runs, &a.lru, &a.positions), (&b.runs, &b.lru, &b.positions));
        prop_assert_eq!((a.rank_1_repeats, a.first_two_repeats), (b.rank_1_repeats, b.first_two_repeats));
        for i in 0..E {
            for j in 0..E {
                let renamed = usize::from(names[i]) * E + usize::from(names[j]);
                prop_assert_eq!(a.transition_counts[i * E + j], b.transition_counts[renamed]);
            }
        }
        // Sums over experts run in another order: they may differ by rounding.
        prop_assert!((a.expected_reuse_of_loads - b.expected_reuse_of_loads).abs() < 1e-12);
        let shares = [a, b].map(|layer| layer.transitions.as_ref().unwrap().information_share);
        prop_assert!((shares[0] - shares[1]).abs() < 1e-9);
    }
}

/// The example of `docs/metrics.md`.
#[test]
fn five_tokens_by_hand() {
    let report = fold(4, 2, &[text(&[&[0, 1], &[1, 2], &[1, 3], &[0, 1], &[3, 0]])]);
    let layer = &report.layers[0];
    // Shared with the next: {1}, {1}, {1}, {0} of two each.
    assert_eq!((layer.reuse, report.expected.reuse), (0.5, 0.5));
    // Two apart: {1}, {1}, {3}; three apart: {0, 1}, none; four apart: {0}.
    assert_eq!(layer.lag_reuse[1..5], [0.5, 0.5, 0.5, 0.0]);
    // Rank 1 is 0, 1, 1, 0, 3.
    assert_eq!(layer.rank_1_repeats, 0.25);
    // Expert 0: 1 and 2; 1: 4; 2: 1; 3: 1 and 1.
    assert_eq!((layer.runs.runs, &layer.runs.lengths[..4]), (6, &[4, 1, 0, 1][..]));
    assert!((layer.runs.mean - 10.0 / 6.0).abs() < 1e-12);
    // Four tokens hold {0, 1, 2, 3} twice.
    assert_eq!((layer.working_sets[1].windows, layer.working_sets[1].experts), (2, 4.0));
    // Stack distances: 1 at 2; 1 at 1; 1 at 1, 0 at 4; 0 at 1, 3 at 3. Four look-ups are the first of their expert.
    assert_eq!((layer.lru.cold_misses, &layer.lru.distances[..]), (4, &[3, 1, 1, 1][..]));
    let rates: Vec<_> = layer.lru.hit_rates.iter().map(|rate| (rate.size, rate.hit_rate)).collect();
    assert_eq!(rates, [(2, 0.4), (4, 0.6)]);
}

#[test]
fn what_never_changes_is_always_reused_and_nothing_crosses_a_sample() {
    let texts = [constant_text("a", 0, 100, 1, &[0, 1]), constant_text("a", 1, 100, 1, &[2, 3])];
    let layer = &fold(8, 2, &texts).layers[0];
    assert!(layer.lag_reuse.iter().all(|&reuse| reuse == 1.0));
    assert_eq!((layer.reuse, layer.rank_1_repeats, layer.first_two_repeats), (1.0, 1.0, 1.0));
    assert_eq!((layer.runs.runs, layer.runs.mean, layer.runs.longer), (4, 100.0, 4));
    assert_eq!((layer.lru.cold_misses, layer.lru.hit_rates[0].hit_rate), (4, 0.99));
    assert_eq!((layer.working_sets[3].experts, layer.working_sets[4].windows), (2.0, 0));
    assert!((layer.lru.hit_rates[0].static_hit_rate - 0.5).abs() < 1e-12);
    assert_eq!(layer.transitions.as_ref().unwrap().information_share, 1.0);
}

#[test]
fn no_tokens_give_a_report_of_zeros_that_json_can_hold() {
    let mut metrics = TemporalMetrics::new(&geometry(4, 4, 2), &MetricsSettings::default());
    play(&geometry(4, 4, 2), &[], &mut metrics).unwrap();
    let report = metrics.report();
    assert_eq!((report.tokens, report.layers[0].reuse, report.layers[0].runs.mean), (0, 0.0, 0.0));
    assert_eq!((report.expected.mean_run, report.overall.lru_hit_rates.len()), (None, 1));
    let json = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<TemporalReport>(&json).unwrap(), report);
}

#[test]
fn totals_that_do_not_belong_together_are_not_merged() {
    let metrics = |k| TemporalMetrics::new(&geometry(4, k, 2), &MetricsSettings::default());
    assert!(matches!(metrics(2).merge(metrics(1)), Err(MetricsError::GeometryMismatch { .. })));
    let other = TemporalMetrics::new(&geometry(4, 2, 2), &MetricsSettings { include_bos: true, seed: 0 });
    assert!(matches!(metrics(2).merge(other), Err(MetricsError::SettingsMismatch { .. })));
}
