//! What tells two runs apart that are to be compared, and what of their settings explains it.

use std::path::PathBuf;

use moetrace_routing::TokenBatch;
use moetrace_trace::SampleRow;

use super::TokenBasis;
use crate::manifest::{GeometryFacts, identity_differences};
use crate::{Difference, Manifest};

/// Where two runs that should be over the same tokens are not. Of two values the first is the reference's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the message of each variant says what its fields are")]
pub enum TokenDifference {
    #[error("data set {dataset} is in {} only", only_in.display())]
    Dataset { dataset: String, only_in: PathBuf },
    #[error("data set {dataset}, text {text} of the plan: sample {reference} and sample {other}")]
    Sample { dataset: String, text: usize, reference: u32, other: u32 },
    #[error("data set {dataset}, sample {sample}: {reference} and {other} tokens")]
    Length { dataset: String, sample: u32, reference: u32, other: u32 },
    #[error("data set {dataset}, sample {sample}: begins with a BOS token: {reference} and {other}")]
    Bos { dataset: String, sample: u32, reference: bool, other: bool },
    #[error("data set {dataset}, sample {sample}: texts of hash {reference} and {other}")]
    Text { dataset: String, sample: u32, reference: String, other: String },
    #[error("data set {dataset}, sample {sample}, row {row} of it: position {reference} and {other}")]
    Position { dataset: String, sample: u32, row: usize, reference: u32, other: u32 },
    #[error("data set {dataset}, sample {sample}, position {position}: token id {reference} and {other}")]
    Token { dataset: String, sample: u32, position: u32, reference: u32, other: u32 },
    #[error(
        "the tokenizers differ, and without token ids in both runs their tokens cannot be told to be the same"
    )]
    Tokenizer,
}

/// Whether two texts, number `text` in plan order, can be the same tokens; their rows decide, where `basis` has them.
pub(super) fn of_samples(
    dataset: &str,
    text: usize,
    basis: TokenBasis,
    reference: &SampleRow,
    other: &SampleRow,
) -> Result<(), TokenDifference> {
    let (dataset, sample) = (dataset.to_owned(), reference.sample_id.0);
    if reference.sample_id != other.sample_id {
        return Err(TokenDifference::Sample { dataset, text, reference: sample, other: other.sample_id.0 });
    }
    if reference.tokens != other.tokens {
        let (reference, other) = (reference.tokens, other.tokens);
        return Err(TokenDifference::Length { dataset, sample, reference, other });
    }
    if reference.begins_with_bos != other.begins_with_bos {
        let (reference, other) = (reference.begins_with_bos, other.begins_with_bos);
        return Err(TokenDifference::Bos { dataset, sample, reference, other });
    }
    // Where ids are at hand they decide: texts may differ behind the length limit.
    if basis == TokenBasis::TextHashes && reference.text_hash != other.text_hash {
        let (reference, other) = (reference.text_hash.clone(), other.text_hash.clone());
        return Err(TokenDifference::Text { dataset, sample, reference, other });
    }
    Ok(())
}

/// Whether two passes over the same samples hold the same tokens at the same positions.
pub(super) fn of_rows(
    dataset: &str,
    basis: TokenBasis,
    reference: &TokenBatch,
    other: &TokenBatch,
) -> Result<(), TokenDifference> {
    let place = |row: usize| {
        let span = reference.span_of(row);
        (dataset.to_owned(), span.map_or(0, |s| s.sample.0), row - span.map_or(0, |s| s.start))
    };
    let (a, b) = (reference.positions(), other.positions());
    if let Some(row) = a.iter().zip(b).position(|(a, b)| a != b) {
        let (dataset, sample, within) = place(row);
        let (reference, other) = (a[row], b[row]);
        return Err(TokenDifference::Position { dataset, sample, row: within, reference, other });
    }
    let (a, b) = (reference.token_ids(), other.token_ids());
    let differ = a.iter().zip(b).position(|(a, b)| a != b);
    if let Some(row) = differ.filter(|_| basis == TokenBasis::TokenIds) {
        let (dataset, sample, _) = place(row);
        let (position, reference, other) = (reference.positions()[row], a[row].0, b[row].0);
        return Err(TokenDifference::Token { dataset, sample, position, reference, other });
    }
    Ok(())
}

/// What of the settings that decide tokens two runs do not share: the likely reason why their tokens differ.
pub(super) fn of_settings(reference: &Manifest, other: &Manifest) -> Vec<Difference> {
    let decides = |name: &str| {
        ["traces", "max_length", "min_chars", "seed", "tokenizer"].contains(&name)
            || name.starts_with("dataset ")
    };
    let mut differences = identity_differences(&reference.identity, &other.identity);
    differences.retain(|difference| decides(&difference.name));
    differences
}

/// What of the shape of their routing two runs do not share.
pub(super) fn of_geometry(reference: &GeometryFacts, other: &GeometryFacts) -> Vec<Difference> {
    let shown = |g: &GeometryFacts| [g.experts.to_string(), g.chosen.to_string(), layers(&g.layers)];
    let names = ["experts", "experts per token", "routed layers"].into_iter();
    names
        .zip(shown(reference).into_iter().zip(shown(other)))
        .filter(|(_, (was, now))| was != now)
        .map(|(name, (was, now))| Difference { name: name.into(), was, now })
        .collect()
}

/// `1 to 27`, or each number where some are missing between.
fn layers(numbers: &[u16]) -> String {
    let unbroken = numbers.is_sorted_by(|a, b| a.checked_add(1) == Some(*b));
    match numbers {
        [first, .., last] if unbroken => format!("{first} to {last}"),
        _ => numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
    }
}

#[cfg(test)]
mod tests {
    use moetrace_routing::{SampleId, Span, TokenId};

    use super::*;

    fn sample() -> SampleRow {
        SampleRow {
            sample_id: SampleId(4),
            source_file: "a".into(),
            source_row: 4,
            label: None,
            tokens: 2,
            truncated: false,
            begins_with_bos: true,
            text_hash: "aa".into(),
            text: None,
        }
    }

    fn rows(ids: [u32; 2], positions: [u32; 2]) -> TokenBatch {
        let span = Span {
            sample: SampleId(4),
            dataset: "d".into(),
            label: None,
            start: 0,
            len: 2,
            begins_with_bos: true,
        };
        TokenBatch::new(ids.map(TokenId).into(), positions.into(), vec![span]).unwrap()
    }

    #[test]
    fn each_thing_that_tells_two_texts_apart_is_named_with_both_values() {
        let told = |basis, other: &SampleRow| {
            of_samples("d", 7, basis, &sample(), other).map_err(|at| at.to_string()).unwrap_err()
        };
        let (ids, hashes) = (TokenBasis::TokenIds, TokenBasis::TextHashes);
        let other = SampleRow { sample_id: SampleId(5), ..sample() };
        assert_eq!(told(ids, &other), "data set d, text 7 of the plan: sample 4 and sample 5");
        assert_eq!(told(ids, &SampleRow { tokens: 3, ..sample() }), "data set d, sample 4: 2 and 3 tokens");
        let other = SampleRow { begins_with_bos: false, ..sample() };
        assert_eq!(told(ids, &other), "data set d, sample 4: begins with a BOS token: true and false");
        let other = SampleRow { text_hash: "bb".into(), ..sample() };
        assert_eq!(told(hashes, &other), "data set d, sample 4: texts of hash aa and bb");
        // Behind the length limit a text may be another: with token ids it is they that count.
        assert_eq!(of_samples("d", 7, ids, &sample(), &other), Ok(()));
    }

    #[test]
    fn each_row_that_tells_two_passes_apart_is_named_with_both_values() {
        let (ids, hashes) = (TokenBasis::TokenIds, TokenBasis::TextHashes);
        let reference = rows([1, 2], [0, 1]);
        let told = |basis, other: &TokenBatch| {
            of_rows("d", basis, &reference, other).map_err(|at| at.to_string()).unwrap_err()
        };
        let moved = rows([1, 2], [0, 9]);
        assert_eq!(told(hashes, &moved), "data set d, sample 4, row 1 of it: position 1 and 9");
        let changed = rows([1, 3], [0, 1]);
        assert_eq!(told(ids, &changed), "data set d, sample 4, position 1: token id 2 and 3");
        // Without ids in both, those of the other mean nothing.
        assert_eq!(of_rows("d", hashes, &reference, &changed), Ok(()));
    }

    #[test]
    fn layers_are_a_range_only_where_none_is_missing() {
        let shown = [&[1, 2, 3][..], &[5], &[0, 2, 4], &[9, 1], &[]].map(layers);
        assert_eq!(shown, ["1 to 3", "5", "0,2,4", "9,1", ""]);
    }
}
