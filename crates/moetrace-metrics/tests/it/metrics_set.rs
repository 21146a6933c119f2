use moetrace_metrics::{
    CoactivationMetrics, FullReport, GroupBy, MetricsError, MetricsFamilies, MetricsSet, MetricsSettings,
    TrackedTokens,
};
use moetrace_routing::TokenId;
use proptest::prelude::*;

use crate::text::{Text, any_texts, constant_text, fold, geometry, play, shards};

const SETTINGS: MetricsSettings = MetricsSettings { include_bos: false, seed: 3 };

fn everything() -> MetricsFamilies {
    let vocabulary = Some(TrackedTokens::new(vec![TokenId(0)]));
    MetricsFamilies { contexts: true, vocabulary, ..MetricsFamilies::of_routing() }
}

fn set(texts: &[Text], families: &MetricsFamilies) -> FullReport {
    let geometry = geometry(7, 3, 2);
    let mut set = MetricsSet::new(&geometry, &SETTINGS, families);
    for text in texts {
        play(&geometry, &[text], &mut set).unwrap();
    }
    set.report()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn the_whole_set_is_the_same_for_any_split_and_order(
        texts in any_texts(7, 3, 2),
        parts in proptest::collection::vec(0usize..3, 12),
        order in Just([0usize, 1, 2]).prop_shuffle(),
        pass_len in 1usize..5,
    ) {
        let geometry = geometry(7, 3, 2);
        let mut merged = MetricsSet::new(&geometry, &SETTINGS, &everything());
        for part in order {
            let mut shard = MetricsSet::new(&geometry, &SETTINGS, &everything());
            for pass in shards(&texts, &parts, part).chunks(pass_len) {
                play(&geometry, pass, &mut shard).unwrap();
            }
            merged.merge(shard).unwrap();
        }
        prop_assert!(merged.report() == set(&texts, &everything()));
    }
}

#[test]
fn every_family_reports_what_it_reports_alone_and_no_other_is_there() {
    let texts = [constant_text("a", 0, 9, 2, &[0, 1, 2]), constant_text("b", 1, 5, 2, &[4, 5, 6])];
    let none = set(&texts, &MetricsFamilies::default());
    assert_eq!(none.core, fold(&geometry(7, 3, 2), &texts, &SETTINGS).report());
    let keys = |report: &FullReport| serde_json::to_value(report).unwrap().as_object().unwrap().len();
    assert_eq!(keys(&none), serde_json::to_value(&none.core).unwrap().as_object().unwrap().len());

    let all = set(&texts, &everything());
    assert_eq!((keys(&all) - keys(&none), all.groups.len()), (7, 3));
    assert_eq!(all.core, none.core);
    let mut alone = CoactivationMetrics::new(&geometry(7, 3, 2), &SETTINGS);
    for text in &texts {
        play(&geometry(7, 3, 2), &[text], &mut alone).unwrap();
    }
    assert_eq!(all.coactivation, Some(alone.report()));
    let read: FullReport = serde_json::from_str(&serde_json::to_string(&all).unwrap()).unwrap();
    // A float may come back off by its last bit.
    assert_eq!((keys(&read), read.core.tokens, read.groups.len()), (keys(&all), all.core.tokens, 3));
}

#[test]
fn sets_of_other_families_are_not_merged() {
    let new = |families: &MetricsFamilies| MetricsSet::new(&geometry(7, 3, 2), &SETTINGS, families);
    let fewer = MetricsFamilies { groups: vec![GroupBy::Dataset], ..everything() };
    assert_eq!(new(&everything()).merge(new(&fewer)), Err(MetricsError::FamiliesMismatch));
}
