//! Differences of two programs' numbers.

use std::collections::BTreeMap;

/// Worst deviation seen of each kind of value.
#[derive(Default)]
pub(crate) struct Worst(pub(crate) BTreeMap<String, f32>);

impl Worst {
    pub(crate) fn compare(
        &mut self,
        case: &str,
        kind: &str,
        name: &str,
        found: &[f32],
        expected: &[f32],
        limit: f32,
    ) {
        assert_eq!(found.len(), expected.len(), "{case}: {name}");
        let difference = |(a, b): (&f32, &f32)| (a - b).abs();
        // NaN compares false with everything, so ask for the good outcome.
        let all_close = found.iter().zip(expected).map(difference).all(|d| d <= limit);
        let worst = found.iter().zip(expected).map(difference).fold(0f32, f32::max);
        assert!(all_close, "{case}: {name} deviates by {worst}, more than {limit}");
        let entry = self.0.entry(kind.to_owned()).or_default();
        *entry = entry.max(worst);
    }
}
