//! Buffers that nobody filled for a while: rows on end that are valid each by itself, in a file whose other rows are not
//! like that. An engine that skips a pass, or a recorder whose hook was not called, leaves such stretches behind.

use moetrace_routing::{ExpertId, LayerIndex, RoutingGeometry, RoutingPlanes};

use super::FaultKind;
use super::stretch::Stretch;

/// Where token ids were not recorded, tokens are told apart by the experts of all layers. Half of the last eight rows
/// must share none with the row before in some layer: of a token that is repeated, experts change places, and single
/// ones come and go, which is no other token.
const MIN_OTHERS: u32 = u8::BITS / 2;

/// Beside the likenesses: the row has not the same experts as the row before.
const CHANGED: u8 = 1 << 7;

/// What a row of a layer may have in common with rows beside it.
#[derive(Debug, Clone, Copy)]
enum Likeness {
    /// The experts of the row before, in their order. Of one expert a token: expert 0, which is what an empty buffer
    /// says; another may have a long table of numbers to itself.
    Experts,
    /// The weights of the row before.
    Weights,
    /// A margin of 0.
    Margin,
    /// A gate entropy of 0.
    Entropy,
    /// The experts that the layer before has in this row.
    Layer,
}

impl Likeness {
    const ALL: [Self; 5] = [Self::Experts, Self::Weights, Self::Margin, Self::Entropy, Self::Layer];

    fn kind(self) -> FaultKind {
        match self {
            Self::Experts => FaultKind::ConstantExperts,
            Self::Weights => FaultKind::ConstantWeights,
            Self::Margin => FaultKind::ZeroMargins,
            Self::Entropy => FaultKind::ZeroEntropy,
            Self::Layer => FaultKind::RepeatedLayer,
        }
    }

    fn what(self, rows: u64) -> String {
        let what = match self {
            Self::Experts => "the experts of the row before",
            Self::Weights => "the weights of the row before",
            Self::Margin => "a margin of 0",
            Self::Entropy => "a gate entropy of 0",
            Self::Layer => "the choices of the layer before",
        };
        format!("{what} in {rows} rows on end, from here on")
    }

    /// Whether it tells anything where tokens are known by their routing alone. In a text of two tokens, over and over,
    /// both may be ties.
    fn needs_ids(self) -> bool {
        !matches!(self, Self::Experts | Self::Weights)
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// A stretch that is no accident.
pub(super) struct Found {
    pub(super) kind: FaultKind,
    pub(super) layer: LayerIndex,
    /// Its first row.
    pub(super) row: u64,
    pub(super) what: String,
}

/// The rows of one file. BOS rows do not count.
#[derive(Debug)]
pub(super) struct Stretches {
    layers: Vec<LayerStretches>,
    /// What tells the rows at hand apart, `[N]`: token ids, or a hash of which experts all layers chose.
    tokens: Vec<u64>,
    has_ids: bool,
    /// Where there are no ids, whether some layer's choice has nothing in common with that of the row before, `[N]`.
    others: Vec<bool>,
    /// A bit for each of the last rows of which that was so.
    window: u8,
    before: Option<u64>,
    /// Rows of another token than the row before.
    changes: u64,
}

#[derive(Debug)]
struct LayerStretches {
    layer: LayerIndex,
    experts: Vec<ExpertId>,
    weights: Vec<f32>,
    /// Of the rows at hand, a bit for each likeness; empty where the layer's columns were refused.
    marks: Vec<u8>,
    of: [Stretch; 5],
}

impl Stretches {
    pub(super) fn new(geometry: &RoutingGeometry, has_ids: bool) -> Self {
        let layer = |&layer: &LayerIndex| LayerStretches {
            layer,
            experts: Vec::new(),
            weights: Vec::new(),
            marks: Vec::new(),
            of: Default::default(),
        };
        Self {
            layers: geometry.layers().iter().map(layer).collect(),
            tokens: Vec::new(),
            has_ids,
            others: Vec::new(),
            window: 0,
            before: None,
            changes: 0,
        }
    }

    /// Begins with `n` rows; `ids` are their tokens, unless those cannot be read.
    pub(super) fn begin(&mut self, n: usize, ids: Option<&[u32]>) {
        self.tokens.clear();
        match ids {
            Some(ids) => self.tokens.extend(ids.iter().map(|&id| u64::from(id))),
            None => self.has_ids = false,
        }
        self.tokens.resize(n, 0);
        self.others.clear();
        self.others.resize(n, false);
        self.layers.iter_mut().for_each(|layer| layer.marks.clear());
    }

    /// Sees one layer of these rows; `before` are the choices of the layer before it.
    pub(super) fn see_layer(
        &mut self,
        ordinal: usize,
        planes: &RoutingPlanes<'_>,
        before: Option<&[ExpertId]>,
        counts: &[bool],
        chosen: usize,
    ) {
        let Some(layer) = self.layers.get_mut(ordinal) else { return };
        for (row, experts) in planes.experts.chunks_exact(chosen).enumerate() {
            if !counts.get(row).is_some_and(|&counts| counts) {
                layer.marks.push(0);
                continue;
            }
            let weights = planes.weights.map_or(&[][..], |weights| &weights[row * chosen..][..chosen]);
            let is_zero = |plane: Option<&[f32]>| plane.is_some_and(|values| values[row] == 0.0);
            let is_empty = chosen > 1 || experts[0] == ExpertId(0);
            let like = |likeness: Likeness, is: bool| if is { likeness.bit() } else { 0 };
            layer.marks.push(
                like(Likeness::Experts, is_empty && layer.experts == experts)
                    | like(Likeness::Weights, chosen > 1 && layer.weights == weights && !weights.is_empty())
                    | like(Likeness::Margin, is_zero(planes.margins))
                    | like(Likeness::Entropy, is_zero(planes.gate_entropy))
                    | like(
                        Likeness::Layer,
                        before.is_some_and(|before| before[row * chosen..][..chosen] == *experts),
                    )
                    | if experts.iter().all(|id| layer.experts.contains(id)) { 0 } else { CHANGED },
            );
            if !self.has_ids {
                let set = experts.iter().fold(0, |set: u64, id| set.wrapping_add(mixed(0, id.0.into())));
                self.tokens[row] = mixed(self.tokens[row], set);
                self.others[row] |= !experts.iter().any(|id| layer.experts.contains(id));
            }
            layer.experts.clear();
            layer.experts.extend_from_slice(experts);
            layer.weights.clear();
            layer.weights.extend_from_slice(weights);
        }
    }

    /// Is through with these rows, whose first is the file's row `first`.
    pub(super) fn end(&mut self, first: u64, counts: &[bool]) {
        for (i, row) in (first..).take(self.tokens.len()).enumerate().filter(|(i, _)| counts[*i]) {
            let token = self.tokens[i];
            let is_other = self.is_other(i);
            let is_told = self.has_ids || self.window.count_ones() >= MIN_OTHERS;
            for layer in &mut self.layers {
                let Some(&mark) = layer.marks.get(i) else { continue };
                for (likeness, stretch) in Likeness::ALL.into_iter().zip(&mut layer.of) {
                    // The same weights of other experts are strange whatever the token is.
                    let of_others = matches!(likeness, Likeness::Weights) && !self.has_ids;
                    let is_told = if of_others { mark & CHANGED != 0 } else { is_told };
                    let token = is_told.then_some(token);
                    stretch.see(mark & likeness.bit() != 0, row, token, is_other);
                }
            }
            self.changes += u64::from(is_other);
        }
    }

    /// Whether a row is of another token than the one before it.
    fn is_other(&mut self, i: usize) -> bool {
        let token = self.tokens[i];
        let before = self.before.replace(token);
        let is_other = before.is_some_and(|before| before != token) && (self.has_ids || self.others[i]);
        self.window = self.window << 1 | u8::from(is_other);
        is_other
    }

    /// The stretches that are no accident.
    pub(super) fn found(&self) -> impl Iterator<Item = Found> {
        let all = self.layers.iter().flat_map(|layer| {
            Likeness::ALL.into_iter().zip(&layer.of).map(|(likeness, of)| (layer.layer, likeness, of))
        });
        let found = all.filter(|(_, likeness, stretch)| {
            (self.has_ids || !likeness.needs_ids()) && stretch.is_no_accident(self.changes)
        });
        found.map(|(layer, likeness, stretch)| Found {
            kind: likeness.kind(),
            layer,
            row: stretch.longest().row,
            what: likeness.what(stretch.longest().rows),
        })
    }
}

/// A hash of two numbers (the finaliser of `SplitMix64`).
fn mixed(hash: u64, value: u64) -> u64 {
    let z = (hash ^ value).wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROWS: usize = 400;
    const LAYERS: u16 = 3;

    /// The choice of a token in a layer, 2 of `e`: a hash of both.
    fn choice(token: u32, layer: u16, e: u64) -> [ExpertId; 2] {
        let hash = mixed(u64::from(token) + 1, layer.into());
        let (first, step) = (hash % e, (hash >> 32) % (e - 1));
        [first, (first + 1 + step) % e].map(|id| ExpertId(id as u16))
    }

    /// What is found in rows of these tokens, in layer 2 of which rows 100 to 99 + `unfilled` hold experts 0 and 1.
    fn found(tokens: &[u32], e: usize, unfilled: usize, with_ids: bool) -> Vec<(FaultKind, u16, u64)> {
        let geometry = RoutingGeometry::new(e, 2, 1, (1..=LAYERS).map(LayerIndex).collect()).unwrap();
        let mut stretches = Stretches::new(&geometry, with_ids);
        for (first, tokens) in (0..).step_by(64).zip(tokens.chunks(64)) {
            let counts = vec![true; tokens.len()];
            stretches.begin(tokens.len(), with_ids.then_some(tokens));
            for layer in 1..=LAYERS {
                let of = |(row, token): (usize, &u32)| {
                    let is_unfilled = layer == 2 && (100..100 + unfilled).contains(&(first + row));
                    if is_unfilled { [0, 1].map(ExpertId) } else { choice(*token, layer, e as u64) }
                };
                let experts: Vec<ExpertId> = tokens.iter().enumerate().flat_map(of).collect();
                let planes = RoutingPlanes { experts: &experts, ..RoutingPlanes::default() };
                stretches.see_layer(usize::from(layer - 1), &planes, None, &counts, 2);
            }
            stretches.end(first as u64, &counts);
        }
        stretches.found().map(|found| (found.kind, found.layer.0, found.row)).collect()
    }

    /// Tokens of a text in which words come back.
    fn text() -> Vec<u32> {
        (0..ROWS as u64).map(|row| (mixed(7, row) % 500) as u32).collect()
    }

    #[test]
    fn a_buffer_unfilled_for_a_pass_is_found_and_a_few_rows_are_no_proof() {
        for with_ids in [true, false] {
            let expected = [(FaultKind::ConstantExperts, 2, 101)];
            assert_eq!(found(&text(), 64, 150, with_ids), expected, "ids {with_ids}");
            assert_eq!(found(&text(), 64, 25, with_ids), [], "ids {with_ids}");
            assert_eq!(found(&text(), 64, 0, with_ids), [], "ids {with_ids}");
        }
    }

    #[test]
    fn a_text_that_repeats_itself_tells_nothing() {
        for (period, with_ids) in [(1, true), (1, false), (2, true), (2, false), (9, true), (9, false)] {
            let tokens: Vec<u32> = (0..ROWS as u32).map(|row| row % period).collect();
            assert_eq!(found(&tokens, 64, 300, with_ids), [], "period {period}, ids {with_ids}");
        }
    }
}
