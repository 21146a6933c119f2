use moetrace_metrics::segments::{CACHE_RATIOS, SEGMENT_LENGTHS, SegmentScores};
use moetrace_metrics::{MetricsError, MetricsSettings, SegmentMetrics, SegmentReport};
use proptest::prelude::*;

use crate::text::{Split, Text, any_long_texts, constant_text, counted_sets, geometry, play, renamed};

const E: usize = 9;
const K: usize = 2;

fn fold(e: usize, k: usize, texts: &[Text]) -> SegmentReport {
    let geometry = geometry(e, k, texts[0].choices.len() as u16);
    let mut metrics = SegmentMetrics::new(&geometry, &MetricsSettings::default());
    for text in texts {
        play(&geometry, &[text], &mut metrics).unwrap();
    }
    metrics.report()
}

/// The counts of every expert in every segment of `length` tokens.
fn naive_counts(sequences: &[(usize, Vec<Vec<u16>>)], length: usize) -> Vec<Vec<usize>> {
    let segments = sequences.iter().flat_map(|(_, sets)| sets.windows(length));
    let count = |segment: &[Vec<u16>]| {
        (0..E as u16).map(|e| segment.iter().filter(|set| set.contains(&e)).count()).collect()
    };
    segments.map(count).collect()
}

/// F1 of the group that `threshold` gives, from its precision and recall over all tokens of all segments.
fn naive_f1(counts: &[Vec<usize>], length: usize, threshold: usize) -> f64 {
    let chosen: usize = counts.iter().flatten().sum();
    let group = || counts.iter().flatten().filter(|&&c| c >= threshold);
    let right: usize = group().sum();
    if right == 0 {
        return 0.0;
    }
    let precision = right as f64 / (length * group().count()) as f64;
    let recall = right as f64 / chosen as f64;
    2.0 * precision * recall / (precision + recall)
}

fn check(scores: &SegmentScores, counts: &[Vec<usize>], length: usize) {
    assert_eq!((scores.length, scores.segments), (length, counts.len() as u64));
    // Threshold 0 is "all experts in every token".
    let all = (0..=length).map(|threshold| naive_f1(counts, length, threshold));
    let best = all.fold(0.0, f64::max);
    assert!((scores.best.srp - best).abs() < 1e-12, "{} {best}", scores.best.srp);
    let threshold = scores.best.threshold;
    assert_eq!(threshold > 0, !counts.is_empty());
    if threshold > 0 {
        assert!((naive_f1(counts, length, threshold) - best).abs() < 1e-12);
        let members = counts.iter().flatten().filter(|&&c| c >= threshold).count();
        assert!((scores.best.size - members as f64 / (K * counts.len()) as f64).abs() < 1e-12);
    }
    let mut below = 0.0;
    for cache in &scores.caches {
        let top = |counts: &Vec<usize>| {
            let mut counts = counts.clone();
            counts.sort_unstable_by(|a, b| b.cmp(a));
            counts.iter().take(cache.size).sum::<usize>()
        };
        let hits: usize = counts.iter().map(top).sum();
        let rate = hits as f64 / (K * length * counts.len()).max(1) as f64;
        assert!((cache.hit_rate - rate).abs() < 1e-12);
        assert!(cache.hit_rate >= below && cache.hit_rate <= 1.0);
        below = cache.hit_rate;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_number_equals_that_of_its_definition(texts in any_long_texts(E, K, 2)) {
        let report = fold(E, K, &texts);
        prop_assert_eq!(report.subset_tokens, report.tokens);
        for (ordinal, layer) in report.layers.iter().enumerate() {
            let sequences = counted_sets(&texts, ordinal);
            for (scores, length) in layer.lengths.iter().zip(SEGMENT_LENGTHS) {
                check(scores, &naive_counts(&sequences, length), length);
                let interval = scores.interval;
                prop_assert_eq!(interval.is_some(), scores.segments > 0);
                // 65,536 tokens are more than these texts have: the subset is everything.
                prop_assert!(interval.is_none_or(|i| i.value == scores.best.srp && i.low <= i.high));
            }
        }
        for (at, overall) in report.overall.iter().enumerate() {
            let all: Vec<Vec<usize>> =
                (0..2).flat_map(|ordinal| naive_counts(&counted_sets(&texts, ordinal), overall.length)).collect();
            let best = (1..=overall.length).map(|t| naive_f1(&all, overall.length, t)).fold(0.0, f64::max);
            prop_assert!((overall.pooled.srp - best).abs() < 1e-12);
            prop_assert!(overall.pooled_interval.is_none_or(|i| i.value == overall.pooled.srp));
            // F1 of all layers is a weighted mean of the layers' at the same threshold.
            prop_assert!(overall.srp.max >= overall.pooled.srp - 1e-12);
            prop_assert_eq!(overall.length, SEGMENT_LENGTHS[at]);
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
        let merged = split.merged(&geometry(E, K, 2), SegmentMetrics::new, SegmentMetrics::merge);
        prop_assert_eq!(merged.report(), fold(E, K, &texts));
    }

    #[test]
    fn renaming_the_experts_changes_nothing(
        texts in any_long_texts(E, K, 1),
        names in Just((0..E as u16).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let (a, b) = (fold(E, K, &texts), fold(E, K, &renamed(&texts, &names)));
        for (a, b) in a.layers[0].lengths.iter().zip(&b.layers[0].lengths) {
            prop_assert_eq!((a.best, a.interval, a.shuffled, &a.caches), (b.best, b.interval, b.shuffled, &b.caches));
            // A sum over experts runs in another order: it may differ by rounding.
            prop_assert!((a.expected_of_loads - b.expected_of_loads).abs() < 1e-9);
        }
    }
}

/// Texts whose experts stay for a stretch of `stay` tokens and then are others.
fn stays(texts: u32, tokens: usize, stay: usize) -> Vec<Text> {
    let text = |id: u32| {
        let mut text = constant_text("a", id, tokens, 1, &[0, 1]);
        for (t, choice) in text.choices[0].iter_mut().enumerate() {
            let set = ((t / stay) as u16 * 3 + id as u16) % 8 * 2;
            choice.experts = vec![set, set + 1];
        }
        text
    };
    (0..texts).map(text).collect()
}

#[test]
fn what_never_changes_is_predicted_whole_and_shuffling_shows_that_it_was_the_text() {
    let report = fold(16, 2, &stays(16, 300, 1000));
    for overall in &report.overall {
        assert_eq!((overall.pooled.srp, overall.pooled.size, overall.above_chance), (1.0, 1.0, 1.0));
        let interval = overall.pooled_interval.unwrap();
        assert_eq!((interval.low, interval.high), (1.0, 1.0));
        assert_eq!(
            (overall.caches[0].size, overall.caches[0].ratio, overall.caches[0].hit_rate.min),
            (2, 1.0, 1.0)
        );
        // Loads alone, and tokens of other texts, leave little of it.
        assert!(
            overall.expected_of_loads.mean < 0.51 && overall.shuffled.unwrap().mean < 0.61,
            "{overall:?}"
        );
    }
    assert_eq!((report.subset_samples, report.subset_tokens), (16, 4800));
}

#[test]
fn longer_segments_are_harder_and_larger_caches_hit_more() {
    let report = fold(16, 2, &stays(20, 400, 20));
    let scores: Vec<f64> = report.overall.iter().map(|overall| overall.pooled.srp).collect();
    assert!(scores.is_sorted_by(|a, b| a > b), "{scores:?}");
    for overall in &report.overall {
        let sizes: Vec<usize> = overall.caches.iter().map(|cache| cache.size).collect();
        assert_eq!(sizes, CACHE_RATIOS.map(|ratio| (2.0 * ratio) as usize));
        assert!(
            overall
                .caches
                .is_sorted_by(|a, b| a.hit_rate.mean <= b.hit_rate.mean && a.expected <= b.expected)
        );
        assert!(overall.pooled.srp > overall.shuffled.unwrap().mean || overall.length == 256);
    }
}

#[test]
fn an_interval_comes_from_texts_that_differ() {
    // Half of the texts never change, half change with every token.
    let texts: Vec<Text> = stays(20, 40, 1000)
        .into_iter()
        .zip(stays(20, 40, 1))
        .enumerate()
        .map(|(i, (still, moving))| Text { id: i as u32, ..if i % 2 == 0 { still } else { moving } })
        .collect();
    let report = fold(16, 2, &texts);
    let interval = report.overall[1].pooled_interval.unwrap();
    assert!(interval.low < interval.value - 0.05 && interval.value + 0.05 < interval.high, "{interval:?}");
    assert_eq!(report.overall[1].pooled_interval, fold(16, 2, &texts).overall[1].pooled_interval);
}

#[test]
fn draws_of_short_texts_alone_are_left_out_and_counted() {
    // One text of 300 tokens that never changes, and eight with no segment of 16.
    let mut texts = stays(9, 15, 1000);
    texts[0] = stays(1, 300, 1000).remove(0);
    let report = fold(16, 2, &texts);
    let interval = report.overall[1].pooled_interval.unwrap();
    assert_eq!((report.overall[1].length, interval.low, interval.high), (16, 1.0, 1.0));
    // (8/9)^9 = 34.6 % of draws miss the long text: of 1,000 within four standard deviations of 346.
    assert!((286..=406).contains(&interval.empty_draws), "{interval:?}");
    assert_eq!(report.layers[0].lengths[1].interval, Some(interval));
    assert_eq!(report.overall[0].pooled_interval.unwrap().empty_draws, 0);
}

#[test]
fn a_text_shorter_than_a_segment_has_none() {
    let report = fold(4, 1, &[constant_text("a", 0, 15, 1, &[2])]);
    let segments: Vec<u64> = report.overall.iter().map(|overall| overall.segments).collect();
    assert_eq!(segments, [12, 0, 0, 0]);
    let none = &report.overall[1];
    assert_eq!((none.pooled.srp, none.above_chance, none.caches[0].hit_rate.mean), (0.0, 0.0, 0.0));
    assert!(none.pooled_interval.is_none() && none.shuffled.is_none());
    let empty = SegmentMetrics::new(&geometry(4, 4, 2), &MetricsSettings::default()).report();
    assert_eq!((empty.subset_samples, empty.overall[0].expected, empty.overall[0].caches.len()), (0, 1.0, 1));
    let json = serde_json::to_string(&empty).unwrap();
    assert_eq!(serde_json::from_str::<SegmentReport>(&json).unwrap(), empty);
}

#[test]
fn a_sample_counted_twice_is_kept_twice_whatever_the_order() {
    let geometry = geometry(16, 2, 1);
    let [mut a, mut b] = [(); 2].map(|()| SegmentMetrics::new(&geometry, &MetricsSettings::default()));
    // Two texts under one name and number, as when runs that overlap are merged.
    let (still, moving) = (&stays(1, 40, 1000)[0], &stays(1, 40, 1)[0]);
    play(&geometry, &[still, moving], &mut a).unwrap();
    play(&geometry, &[moving], &mut b).unwrap();
    let mut other = SegmentMetrics::new(&geometry, &MetricsSettings::default());
    play(&geometry, &[still], &mut other).unwrap();
    b.merge(other).unwrap();
    assert_eq!(a.report(), b.report());
    assert_eq!((a.report().subset_samples, a.report().subset_tokens), (2, 80));
}

#[test]
fn totals_that_do_not_belong_together_are_not_merged() {
    let metrics = |k| SegmentMetrics::new(&geometry(4, k, 2), &MetricsSettings::default());
    assert!(matches!(metrics(2).merge(metrics(1)), Err(MetricsError::GeometryMismatch { .. })));
    let other = SegmentMetrics::new(&geometry(4, 2, 2), &MetricsSettings { include_bos: false, seed: 1 });
    assert!(matches!(metrics(2).merge(other), Err(MetricsError::SettingsMismatch { .. })));
}
