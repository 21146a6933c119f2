//! What one MoE layer's router decided for one pass, checked once.

use crate::{ExpertId, LayerIndex, MoeOrdinal, RoutingError, RoutingGeometry};

/// The router's input at some rows of the pass, `[n, D]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HiddenRows<'a> {
    /// Rows of the pass, ascending, `[n]`.
    pub rows: &'a [u32],
    /// Their hidden states, `[n, D]`.
    pub values: &'a [f32],
}

/// Borrowed slices as a producer has them; [`RoutingView::new`] checks them.
///
/// An engine has weights, margins and gate entropies of every token. They are absent where routing that another
/// tool recorded without them is played back.
#[derive(Debug, Clone, Copy, Default)]
pub struct RoutingPlanes<'a> {
    /// Chosen experts in rank order, `[N, K]`.
    pub experts: &'a [ExpertId],
    /// Weights as multiplied into the experts (after any renormalisation), `[N, K]`, non-increasing.
    pub weights: Option<&'a [f32]>,
    /// Score of rank k minus score of rank k+1 as the router rounded them, `[N]`; 0 is a tie. Where all
    /// experts are chosen, the score of rank k.
    pub margins: Option<&'a [f32]>,
    /// Entropy of the full softmax in bits, `[N]`.
    pub gate_entropy: Option<&'a [f32]>,
    /// Router logits, `[N, E]`.
    pub logits: Option<&'a [f32]>,
    /// Gate of the shared expert after its sigmoid, `[N]`.
    pub shared_gate: Option<&'a [f32]>,
    /// Router input of sampled rows.
    pub hidden: Option<HiddenRows<'a>>,
    /// Loss in nats of each token given those before it, `[N]`, NaN at the first row of a span; only in
    /// the view of the last MoE layer.
    pub nll: Option<&'a [f32]>,
}

impl RoutingPlanes<'_> {
    /// What an engine has of a pass without tokens: nothing is absent, and nothing is there.
    pub fn of_no_tokens() -> Self {
        Self { weights: Some(&[]), margins: Some(&[]), gate_entropy: Some(&[]), ..Self::default() }
    }
}

/// One MoE layer of one pass. Everything in it has been checked against the geometry.
#[derive(Debug, Clone, Copy)]
pub struct RoutingView<'a> {
    ordinal: MoeOrdinal,
    layer: LayerIndex,
    rows: usize,
    chosen: usize,
    planes: RoutingPlanes<'a>,
}

impl<'a> RoutingView<'a> {
    /// Checks `planes` of a pass of `rows` tokens.
    ///
    /// # Errors
    /// A [`RoutingError`] that names the layer, and the first offending row: a wrong length, an expert
    /// outside `0..E` or chosen twice, weights that rise with the rank, hidden rows that do not ascend, a weight,
    /// margin, entropy or shared gate that is not finite or below 0, a logit or hidden state that is not finite.
    /// A loss may be NaN, since a view does not know where spans begin, but not infinite.
    pub fn new(
        geometry: &RoutingGeometry,
        ordinal: MoeOrdinal,
        rows: usize,
        planes: RoutingPlanes<'a>,
    ) -> Result<Self, RoutingError> {
        let layers = geometry.layers().len();
        let layer =
            geometry.layer(ordinal).ok_or(RoutingError::Ordinal { found: ordinal.index(), layers })?;
        let (e, k, d) = (geometry.experts(), geometry.chosen(), geometry.hidden());
        check_lengths(layer, rows, k, e, d, &planes)?;
        check_experts(layer, k, e, planes.experts)?;
        check_weights(layer, k, planes.weights.unwrap_or_default())?;
        check_finite(layer, e, d, &planes)?;
        Ok(Self { ordinal, layer, rows, chosen: k, planes })
    }

    /// A view of values that were in a view before, and need no second check.
    pub(crate) fn checked_before(
        ordinal: MoeOrdinal,
        layer: LayerIndex,
        rows: usize,
        chosen: usize,
        planes: RoutingPlanes<'a>,
    ) -> Self {
        Self { ordinal, layer, rows, chosen, planes }
    }

    /// The same view with other weights, for a rounding that keeps their order.
    pub(crate) fn with_weights(self, weights: &'a [f32]) -> Self {
        debug_assert_eq!(Some(weights.len()), self.planes.weights.map(<[f32]>::len));
        Self { planes: RoutingPlanes { weights: Some(weights), ..self.planes }, ..self }
    }

    /// Position among the MoE layers.
    pub fn ordinal(&self) -> MoeOrdinal {
        self.ordinal
    }

    /// Absolute number of the layer.
    pub fn layer(&self) -> LayerIndex {
        self.layer
    }

    /// N, the tokens of the pass.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// K, the experts chosen per token.
    pub fn chosen(&self) -> usize {
        self.chosen
    }

    /// Chosen experts in rank order, `[N, K]`.
    pub fn experts(&self) -> &'a [ExpertId] {
        self.planes.experts
    }

    /// Weights as applied, `[N, K]`, non-increasing in each row, if recorded.
    pub fn weights(&self) -> Option<&'a [f32]> {
        self.planes.weights
    }

    /// Score of rank k minus score of rank k+1, `[N]`, if recorded.
    pub fn margins(&self) -> Option<&'a [f32]> {
        self.planes.margins
    }

    /// Entropy of the full softmax in bits, `[N]`, if recorded.
    pub fn gate_entropy(&self) -> Option<&'a [f32]> {
        self.planes.gate_entropy
    }

    /// Router logits, `[N, E]`, if wanted.
    pub fn logits(&self) -> Option<&'a [f32]> {
        self.planes.logits
    }

    /// Gate of the shared expert, `[N]`, if wanted and the model has one.
    pub fn shared_gate(&self) -> Option<&'a [f32]> {
        self.planes.shared_gate
    }

    /// Router input of sampled rows, if wanted.
    pub fn hidden(&self) -> Option<HiddenRows<'a>> {
        self.planes.hidden
    }

    /// Loss in nats per token, `[N]`, NaN where a span begins; only with the last MoE layer, if wanted.
    pub fn nll(&self) -> Option<&'a [f32]> {
        self.planes.nll
    }

    /// All planes at once.
    pub fn planes(&self) -> &RoutingPlanes<'a> {
        &self.planes
    }
}

fn check_lengths(
    layer: LayerIndex,
    n: usize,
    k: usize,
    e: usize,
    d: usize,
    planes: &RoutingPlanes<'_>,
) -> Result<(), RoutingError> {
    let hidden_rows = planes.hidden.map(|h| h.rows.len());
    let all = [
        ("experts", Some(planes.experts.len()), n * k),
        ("weights", planes.weights.map(<[f32]>::len), n * k),
        ("margins", planes.margins.map(<[f32]>::len), n),
        ("gate entropy", planes.gate_entropy.map(<[f32]>::len), n),
        ("logits", planes.logits.map(<[f32]>::len), n * e),
        ("shared gate", planes.shared_gate.map(<[f32]>::len), n),
        ("hidden states", planes.hidden.map(|h| h.values.len()), hidden_rows.unwrap_or(0) * d),
        ("token loss", planes.nll.map(<[f32]>::len), n),
    ];
    for (plane, found, expected) in all {
        if let Some(found) = found.filter(|&found| found != expected) {
            return Err(RoutingError::PlaneLength { layer, plane, found, expected });
        }
    }
    if let Some(row) = planes.hidden.and_then(|h| h.rows.iter().copied().find(|&r| r as usize >= n)) {
        let (found, plane) = (row as usize, "rows up to the last hidden row");
        return Err(RoutingError::PlaneLength { layer, plane, found, expected: n });
    }
    let hidden_rows = planes.hidden.map_or(&[][..], |h| h.rows);
    match hidden_rows.array_windows().find(|[before, found]| before >= found) {
        Some(&[before, found]) => Err(RoutingError::HiddenOrder { layer, found, before }),
        None => Ok(()),
    }
}

fn check_experts(layer: LayerIndex, k: usize, e: usize, experts: &[ExpertId]) -> Result<(), RoutingError> {
    // Every trace that is read comes by here, so what is wrong is only looked for where something is.
    if e <= 64 && are_distinct_below(experts, k, e) {
        return Ok(());
    }
    for (row, ids) in experts.chunks_exact(k).enumerate() {
        for (rank, id) in ids.iter().enumerate() {
            if id.index() >= e {
                return Err(RoutingError::ExpertRange { layer, row, found: id.0, experts: e });
            }
            if ids[..rank].contains(id) {
                return Err(RoutingError::ExpertTwice { layer, row, expert: id.0 });
            }
        }
    }
    Ok(())
}

/// Whether all ids are below `e`, which is 64 at most, and distinct within each row of `k`: a bit for each expert.
fn are_distinct_below(experts: &[ExpertId], k: usize, e: usize) -> bool {
    let mut wrong = false;
    for ids in experts.chunks_exact(k) {
        let mut set = 0u64;
        for id in ids {
            let bit = 1u64 << (id.0 & 63);
            wrong |= id.index() >= e || set & bit != 0;
            set |= bit;
        }
    }
    !wrong
}

fn check_weights(layer: LayerIndex, k: usize, weights: &[f32]) -> Result<(), RoutingError> {
    for (row, weights) in weights.chunks_exact(k).enumerate() {
        for (rank, &found) in weights.iter().enumerate() {
            let before = weights[rank.saturating_sub(1)];
            if !(found.is_finite() && found >= 0.0) {
                return Err(RoutingError::NotFinite { layer, row, plane: "weight", found });
            }
            if found > before {
                return Err(RoutingError::WeightOrder { layer, row, rank, found, before });
            }
        }
    }
    Ok(())
}

fn check_finite(
    layer: LayerIndex,
    e: usize,
    d: usize,
    planes: &RoutingPlanes<'_>,
) -> Result<(), RoutingError> {
    let none: &[f32] = &[];
    let positive = [
        ("margin", planes.margins.unwrap_or(none)),
        ("gate entropy", planes.gate_entropy.unwrap_or(none)),
        ("shared gate", planes.shared_gate.unwrap_or(none)),
    ];
    for (plane, values) in positive {
        if let Some(row) = values.iter().position(|v| !(v.is_finite() && *v >= 0.0)) {
            return Err(RoutingError::NotFinite { layer, row, plane, found: values[row] });
        }
    }
    if let Some(at) = planes.logits.unwrap_or(none).iter().position(|v| !v.is_finite()) {
        let found = planes.logits.unwrap_or(none)[at];
        return Err(RoutingError::NotFinite { layer, row: at / e, plane: "logit", found });
    }
    if let Some(row) = planes.nll.unwrap_or(none).iter().position(|v| v.is_infinite()) {
        let found = planes.nll.unwrap_or(none)[row];
        return Err(RoutingError::NotFinite { layer, row, plane: "token loss", found });
    }
    if let Some(hidden) = &planes.hidden
        && let Some(at) = hidden.values.iter().position(|v| !v.is_finite())
    {
        let (row, found) = (hidden.rows[at / d] as usize, hidden.values[at]);
        return Err(RoutingError::NotFinite { layer, row, plane: "hidden state", found });
    }
    Ok(())
}
