//! A text with its routing, as every reader of a foreign layout gives it.

use std::path::PathBuf;

use moetrace_metrics::LARGEST_TERM;
use moetrace_routing::{ExpertId, LayerIndex, RoutingGeometry, WeightPrecision, round_to_half_precision};

use crate::ExchangeError;

/// One text of a source.
#[derive(Debug)]
pub(super) struct Text {
    /// Index of its file among the source's, and its row there.
    pub(super) file: u32,
    pub(super) row: u32,
    /// N.
    pub(super) len: usize,
    /// Vocabulary ids, `[N]`, where they are recorded.
    pub(super) tokens: Option<Vec<u32>>,
    /// `[L]`.
    pub(super) layers: Vec<TextLayer>,
    /// First 16 bytes of a hash that stands for the text.
    pub(super) hash: [u8; 16],
}

/// The routing of one text in one layer.
#[derive(Debug, Default)]
pub(super) struct TextLayer {
    /// `[N, K]`, in rank order.
    pub(super) experts: Vec<ExpertId>,
    /// `[N, K]`, where they are recorded.
    pub(super) weights: Option<Vec<f32>>,
}

/// Reads the texts of one source, one after the other.
pub(super) trait TextReader {
    /// The next text, all of it checked; `None` behind the last.
    fn next(&mut self) -> Result<Option<Text>, ExchangeError>;
}

/// A source whose files have been found.
pub(super) struct Opened {
    /// Its files, paths below its root.
    pub(super) files: Vec<(String, PathBuf)>,
    pub(super) shape: Shape,
    pub(super) has_weights: bool,
    pub(super) has_tokens: bool,
    pub(super) reader: Box<dyn TextReader>,
}

/// E, K and the layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) experts: usize,
    pub(super) chosen: usize,
    pub(super) layers: Vec<u16>,
}

impl Shape {
    /// The width of the router's input is not recorded: 1 stands for it, and no number here depends on it.
    pub(super) fn geometry(&self) -> Result<RoutingGeometry, moetrace_routing::RoutingError> {
        RoutingGeometry::new(
            self.experts,
            self.chosen,
            1,
            self.layers.iter().map(|&layer| LayerIndex(layer)).collect(),
        )
    }
}

/// What a token's choices must be.
#[derive(Debug, Clone, Copy)]
pub(super) struct TokenRules {
    /// E.
    pub(super) experts: usize,
    /// What weights are going to be rounded to.
    pub(super) precision: WeightPrecision,
}

/// What is wrong with a token's choices.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TokenFault {
    /// Whether it is the weights, which may stand in a file of their own.
    pub(super) is_in_weights: bool,
    pub(super) what: String,
}

/// One token's choices, put in rank order and added to a layer: falling weights, ties to the lower id. Without weights
/// the order is the file's. Says what is wrong with them, if anything.
pub(super) fn add_token(
    layer: &mut TextLayer,
    ids: &[i64],
    weights: Option<&[f32]>,
    rules: TokenRules,
) -> Result<(), TokenFault> {
    let (experts, wrong) = (rules.experts, |what| TokenFault { is_in_weights: false, what });
    let first = layer.experts.len();
    for (rank, &id) in ids.iter().enumerate() {
        if !(0..experts as i64).contains(&id) {
            return Err(wrong(format!("expert {id}, expected 0 to {}", experts - 1)));
        }
        if ids[..rank].contains(&id) {
            return Err(wrong(format!("expert {id} is chosen twice by one token")));
        }
        // E is at most 65,536.
        layer.experts.push(ExpertId(id as u16));
    }
    let Some(weights) = weights else { return Ok(()) };
    check_weights(weights, rules.precision).map_err(|what| TokenFault { is_in_weights: true, what })?;
    let mut ranked: Vec<(ExpertId, f32)> =
        layer.experts[first..].iter().copied().zip(weights.iter().copied()).collect();
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    for (slot, (id, _)) in layer.experts[first..].iter_mut().zip(&ranked) {
        *slot = *id;
    }
    layer.weights.get_or_insert_default().extend(ranked.iter().map(|(_, weight)| weight));
    Ok(())
}

/// Weights that no router applies, that no sum of ours holds, or that rounding would make 0.
fn check_weights(weights: &[f32], precision: WeightPrecision) -> Result<(), String> {
    if let Some(bad) = weights.iter().find(|weight| !(weight.is_finite() && **weight >= 0.0)) {
        return Err(format!("a weight is {bad}, expected a number of at least 0"));
    }
    if let Some(large) = weights.iter().find(|&&weight| weight > LARGEST_TERM) {
        return Err(format!("a weight is {large}, expected at most {LARGEST_TERM}"));
    }
    if weights.iter().all(|&weight| weight == 0.0) {
        return Err("all weights of a token are 0".into());
    }
    let is_lost = |weight: &f32| *weight > 0.0 && round_to_half_precision(*weight) == 0.0;
    if let Some(small) = weights.iter().find(|weight| is_lost(weight) && precision == WeightPrecision::Half) {
        return Err(format!("a weight is {small:e}, which --weights f16 makes 0; --weights f32 keeps it"));
    }
    Ok(())
}

/// First 16 bytes of a hash.
pub(super) fn short(hasher: &blake3::Hasher) -> [u8; 16] {
    let mut first = [0; 16];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: TokenRules = TokenRules { experts: 8, precision: WeightPrecision::Full };

    #[test]
    fn choices_are_ranked_by_weight_and_ties_go_to_the_lower_id() {
        let mut layer = TextLayer::default();
        add_token(&mut layer, &[5, 2, 7, 0], Some(&[0.25, 0.5, 0.25, 0.0]), RULES).unwrap();
        assert_eq!(layer.experts, [2, 5, 7, 0].map(ExpertId));
        assert_eq!(layer.weights.as_deref(), Some(&[0.5, 0.25, 0.25, 0.0][..]));
        let mut bare = TextLayer::default();
        add_token(&mut bare, &[5, 2, 7, 0], None, RULES).unwrap();
        assert_eq!((bare.experts.as_slice(), bare.weights), (&[5, 2, 7, 0].map(ExpertId)[..], None));
    }

    #[test]
    fn what_no_router_chooses_is_refused_with_its_value() {
        let refusal = |ids: &[i64], weights: Option<&[f32]>| {
            let fault = add_token(&mut TextLayer::default(), ids, weights, RULES).unwrap_err();
            assert_eq!(fault.is_in_weights, weights.is_some());
            fault.what
        };
        assert_eq!(refusal(&[0, 8], None), "expert 8, expected 0 to 7");
        assert_eq!(refusal(&[0, -1], None), "expert -1, expected 0 to 7");
        assert_eq!(refusal(&[3, 3], None), "expert 3 is chosen twice by one token");
        assert_eq!(refusal(&[0, 1], Some(&[0.5, -0.5])), "a weight is -0.5, expected a number of at least 0");
        assert_eq!(
            refusal(&[0, 1], Some(&[f32::NAN, 0.5])),
            "a weight is NaN, expected a number of at least 0"
        );
        assert_eq!(refusal(&[0, 1], Some(&[0.0, 0.0])), "all weights of a token are 0");
        assert_eq!(refusal(&[0, 1], Some(&[40_000.0, 1.0])), "a weight is 40000, expected at most 32768");
    }

    #[test]
    fn a_weight_that_rounding_would_make_0_is_refused() {
        let add = |precision, weights: &[f32]| {
            let rules = TokenRules { precision, ..RULES };
            add_token(&mut TextLayer::default(), &[0, 1], Some(weights), rules)
        };
        let tiny = [0.5, 1e-42];
        assert_eq!(add(WeightPrecision::Full, &tiny), Ok(()));
        let fault = add(WeightPrecision::Half, &tiny).unwrap_err();
        assert_eq!(fault.what, "a weight is 1e-42, which --weights f16 makes 0; --weights f32 keeps it");
        assert_eq!(add(WeightPrecision::Half, &[0.5, 1e-30]), Ok(()));
        assert_eq!(add(WeightPrecision::Half, &[0.5, 0.0]), Ok(()));
    }
}
