use moetrace_metrics::{MetricsSettings, domain};
use proptest::prelude::*;

use crate::text::{Text, any_texts, constant_text, fold, geometry};

const SETTINGS: MetricsSettings = MetricsSettings { include_bos: false, seed: 1 };

#[test]
fn experts_that_identify_the_data_set_give_its_whole_entropy_far_above_the_null() {
    // A quarter of the tokens is code, which has expert pairs of its own.
    let texts: Vec<Text> = (0..40u32)
        .map(|id| match id % 4 {
            0 => constant_text("code", id, 10, 2, &[0, 1]),
            1 => constant_text("prose", id, 10, 2, &[2, 3]),
            _ => constant_text("prose", id, 10, 2, &[4, 5]),
        })
        .collect();
    let report = fold(&geometry(6, 2, 2), &texts, &SETTINGS).report();
    let entropy = -(0.25f64 * 0.25f64.log2() + 0.75 * 0.75f64.log2());
    for layer in &report.layers {
        let s = layer.specialisation.as_ref().unwrap();
        assert!((s.mutual_information_bits - entropy).abs() < 1e-12);
        assert!((s.dataset_entropy_bits - entropy).abs() < 1e-12);
        // 400 tokens: the subset is everything.
        assert_eq!((s.subset_samples, s.subset_tokens, s.null_draws), (40, 400, 100));
        assert!((s.subset_mutual_information_bits - entropy).abs() < 1e-12);
        assert!(s.null_mean_bits < 0.2 && s.null_95th_percentile_bits <= s.null_max_bits);
        assert!(s.null_max_bits < entropy / 2.0 && s.z.unwrap() > 5.0, "{s:?}");
    }
    assert!((report.overall.mutual_information_bits.unwrap().min - entropy).abs() < 1e-12);

    let code = &report.datasets[0];
    assert_eq!((code.name.as_str(), code.samples, code.tokens), ("code", 10, 100));
    let top = &code.layers[0].top_experts;
    let named: Vec<_> = top.iter().map(|t| (t.expert, t.share, t.ratio)).collect();
    assert_eq!(named, [(0, 1.0, 4.0), (1, 1.0, 4.0)]);
}

#[test]
fn experts_that_ignore_the_data_set_stay_within_their_null() {
    let texts: Vec<Text> = (0..60u32)
        .map(|id| {
            // The data set changes every 3 texts, the experts with every text.
            let dataset = if (id / 3) % 2 == 0 { "code" } else { "prose" };
            let first = u16::try_from(id % 3).unwrap() * 2;
            constant_text(dataset, id, 7, 1, &[first, first + 1])
        })
        .collect();
    let report = fold(&geometry(6, 2, 1), &texts, &SETTINGS).report();
    let s = report.layers[0].specialisation.as_ref().unwrap();
    assert!(s.mutual_information_bits < 1e-12);
    assert!(s.null_mean_bits > 1e-3, "a null of few samples is not 0: {s:?}");
    assert!(s.z.unwrap() < 0.0);
}

#[test]
fn the_seed_chooses_the_null_and_nothing_else() {
    let texts: Vec<Text> = (0..30u32)
        .map(|id| {
            let dataset = if id % 2 == 0 { "code" } else { "prose" };
            let first = u16::try_from(id % 5).unwrap();
            constant_text(dataset, id, 4, 1, &[first, first + 1])
        })
        .collect();
    let report =
        |seed| fold(&geometry(6, 2, 1), &texts, &MetricsSettings { include_bos: false, seed }).report();
    assert_eq!(report(1), report(1));
    let (a, b) = (report(1), report(2));
    let of = |r: &moetrace_metrics::MetricsReport| r.layers[0].specialisation.clone().unwrap();
    assert_ne!(of(&a).null_mean_bits, of(&b).null_mean_bits);
    assert_eq!(of(&a).mutual_information_bits, of(&b).mutual_information_bits);
    assert_eq!(a.layers[0].loads, b.layers[0].loads);
}

#[test]
fn the_subset_is_bounded_and_says_how_much_it_holds() {
    // 100 texts of 1,000 tokens: 65,536 are reached by the 66th.
    let texts: Vec<Text> = (0..100u32)
        .map(|id| constant_text(if id % 2 == 0 { "a" } else { "b" }, id, 1000, 1, &[u16::from(id % 2 == 0)]))
        .collect();
    let report = fold(&geometry(2, 1, 1), &texts, &SETTINGS).report();
    let s = report.layers[0].specialisation.as_ref().unwrap();
    assert_eq!((s.subset_samples, s.subset_tokens, report.tokens), (66, 66_000, 100_000));
    assert!((s.mutual_information_bits - 1.0).abs() < 1e-12);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn information_lies_between_nothing_and_the_entropy_of_the_data_sets(texts in any_texts(6, 2, 1)) {
        let report = fold(&geometry(6, 2, 1), &texts, &SETTINGS).report();
        if let Some(s) = &report.layers[0].specialisation {
            prop_assert!(s.mutual_information_bits >= 0.0);
            prop_assert!(s.mutual_information_bits <= s.dataset_entropy_bits + 1e-12);
        }
    }

    #[test]
    fn information_does_not_care_which_of_the_two_is_the_row(cells in proptest::collection::vec(0u64..50, 12)) {
        let turned: Vec<u64> = (0..4).flat_map(|c| (0..3).map(move |r| (r, c))).map(|(r, c)| cells[r * 4 + c]).collect();
        let difference = domain::mutual_information(&cells, 4) - domain::mutual_information(&turned, 3);
        prop_assert!(difference.abs() < 1e-12);
    }
}
