//! What is held does not grow with the tokens that were counted.

use moetrace_metrics::{MetricsFamilies, MetricsSet, MetricsSettings, TrackedTokens};
use moetrace_routing::TokenId;

use crate::text::{Choice, Text, geometry, play};

const E: u16 = 8;
const TOKENS: usize = 8;

/// A short text whose routing is a hash of its number.
fn text(id: u32) -> Text {
    let choice = |at: u32| {
        let hash = (id * 31 + at).wrapping_mul(0x9E37_79B9) >> 8;
        let (first, step) = (hash as u16 % E, (hash >> 8) as u16 % (E - 1));
        Choice {
            experts: vec![first, (first + 1 + step) % E],
            weights: vec![0.5, 0.25],
            margin: 0.125,
            gate_entropy: 2.0,
        }
    };
    let layer = |ordinal: u32| (0..TOKENS as u32).map(|at| choice(at + 1_000 * ordinal)).collect();
    Text { dataset: format!("d{}", id % 3), id, bos: false, choices: (0..2).map(layer).collect() }
}

/// The characters that show all that a set holds: numbers have some digits more where they are larger, and nothing else
/// may be added. Unlike bytes of a heap they are the same on every machine.
fn held(texts: u32) -> usize {
    let geometry = geometry(E.into(), 2, 2);
    let families = MetricsFamilies {
        contexts: true,
        vocabulary: Some(TrackedTokens::new(vec![TokenId(0)])),
        ..MetricsFamilies::of_routing()
    };
    let mut set = MetricsSet::new(&geometry, &MetricsSettings::default(), &families);
    for id in 0..texts {
        play(&geometry, &[&text(id)], &mut set).unwrap();
    }
    format!("{set:?}").len()
}

#[test]
fn twice_the_tokens_take_no_more_memory() {
    // Rows are kept of 2,048 texts at most: below 32 tokens a text counts as 32 of 65,536.
    let (some, more) = (held(2_300), held(4_600));
    assert!(more < some + some / 50, "{some} characters, {more} with twice the tokens");
    assert!(held(600) < some / 2, "before that it grows, or the measure would say nothing");
}
