//! Samples into passes.

use moetrace_corpus::{Sample, pack, passes};
use moetrace_routing::{Name, SampleId, TokenId};
use proptest::prelude::*;

fn sample(id: u32, tokens: usize) -> Sample {
    Sample {
        id: SampleId(id),
        file: 0,
        row: id,
        label: id.is_multiple_of(2).then(|| "even".into()),
        text: None,
        text_hash: [0; 16],
        tokens: (0..tokens as u32).map(|t| TokenId(id * 1000 + t)).collect(),
        truncated: false,
        begins_with_bos: id.is_multiple_of(3),
    }
}

proptest! {
    #[test]
    fn passes_tile_the_samples_within_the_budget_and_packing_tiles_the_rows(
        lengths in prop::collection::vec(1usize..40, 0..40), budget in 0usize..100,
    ) {
        let samples: Vec<_> = lengths.iter().enumerate().map(|(i, &len)| sample(i as u32, len)).collect();
        let dataset: Name = "d".into();
        let mut next = 0;
        for range in passes(&samples, budget) {
            prop_assert_eq!(range.start, next);
            prop_assert!(!range.is_empty());
            next = range.end;
            let batch = pack(&dataset, &samples[range.clone()]).unwrap();
            prop_assert!(batch.len() <= budget || range.len() == 1);
            for (span, sample) in batch.spans().iter().zip(&samples[range.clone()]) {
                prop_assert_eq!(&batch.token_ids()[span.rows()], &sample.tokens[..]);
                let positions: Vec<u32> = (0..sample.tokens.len() as u32).collect();
                prop_assert_eq!(&batch.positions()[span.rows()], &positions[..]);
                prop_assert_eq!((span.sample, span.begins_with_bos), (sample.id, sample.begins_with_bos));
                prop_assert_eq!(&span.label, &sample.label);
            }
            prop_assert_eq!(batch.spans().len(), range.len());
            // A pass ends only where the next sample would not fit.
            if let Some(after) = samples.get(range.end) {
                prop_assert!(batch.len() + after.tokens.len() > budget);
            }
        }
        prop_assert_eq!(next, samples.len());
    }
}

#[test]
fn a_sample_without_tokens_cannot_be_packed() {
    assert!(pack(&"d".into(), &[sample(0, 2), sample(1, 0)]).is_err());
}
