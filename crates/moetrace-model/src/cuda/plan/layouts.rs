//! The layouts that a budget allows, and the fastest of them.

use super::budget::{Budget, Offload, Wishes};
use super::fill::filled;
use super::hidden::MOST_PASS;
use super::speed::{GpuSpeed, Pace};
use crate::Precision;
use crate::cuda::memory::{CudaMemoryPlan, LARGEST_PASS, PASS_STEP};
use crate::cuda::placement::{Place, Placement};

/// Most tokens of a pass in one piece, and of a chunk, unless more are asked for: the size that speeds are stated for.
const USUAL_CHUNK: usize = 40_960;
/// A pass in one piece of so many tokens is taken without looking further: an H200 reaches 87 % of its best there.
const GOOD_PASS: usize = 8_192;
/// Tokens of a streamed pass of 4-bit weights, and of dense ones: some more than copies need to hide on an H200, which has the
/// fastest arithmetic for its bus. The smallest such passes of DeepSeek-MoE-16B are about 18,000 and 72,000 tokens there.
const STREAMED_PASS: [usize; 2] = [65_536, 131_072];
/// What counts as equally fast.
const EQUAL: f64 = 0.01;

/// What is asked, and of what.
#[derive(Clone, Copy)]
pub(super) struct Layouts<'a> {
    pub(super) plan: &'a CudaMemoryPlan<'a>,
    pub(super) gpu: GpuSpeed,
    pub(super) budget: Budget,
    pub(super) wishes: &'a Wishes,
}

impl Layouts<'_> {
    /// The one to take, if there is any.
    pub(super) fn best(&self) -> Option<Placement> {
        let resident = self.resident();
        let asked = self.wishes.tokens_per_pass.is_some() || self.wishes.offload == Offload::Never;
        if let Some(resident) = &resident
            && (asked || resident.tokens_per_pass >= GOOD_PASS)
        {
            return Some(resident.clone());
        }
        let pace = Pace::new(self.plan, self.gpu, self.longest());
        let streamed = match self.asked_pass() {
            Some(tokens) => self.streamed(&[tokens], &[tokens], &pace),
            None => self.streamed(&self.automatic_passes(), &self.sizes(USUAL_CHUNK), &pace),
        };
        self.fastest(resident.into_iter().chain(streamed).collect(), &pace)
    }

    /// The fastest for passes of one of these sizes, whole layers coming in turns; where whole layers fit for no pass, in
    /// groups of experts and passes of one of the sizes `in_groups`.
    fn streamed(&self, passes: &[usize], in_groups: &[usize], pace: &Pace<'_>) -> Option<Placement> {
        let chunked = passes.iter().flat_map(|tokens| self.chunked(*tokens)).collect();
        self.fastest(chunked, pace).or_else(|| {
            let grouped = if self.needs_groups() { self.grouped(in_groups) } else { Vec::new() };
            self.fastest(grouped, pace)
        })
    }

    /// Whether whole layers fit for no pass.
    pub(super) fn needs_groups(&self) -> bool {
        self.chunked(self.longest()).is_empty()
    }

    /// Tokens of the longest text, at least one.
    pub(super) fn longest(&self) -> usize {
        self.wishes.longest.max(1)
    }

    /// Tokens of a pass that were asked for; a text that is longer is a pass of its own.
    pub(super) fn asked_pass(&self) -> Option<usize> {
        self.wishes.tokens_per_pass.map(|tokens| tokens.min(MOST_PASS).max(self.longest()))
    }

    pub(super) fn fits(&self, placement: &Placement) -> bool {
        let memory = self.plan.memory_of(placement);
        memory.total() <= self.budget.device && memory.host <= self.budget.host
    }

    /// Everything on the device and passes in one piece: of the size asked for, else the largest that fits.
    fn resident(&self) -> Option<Placement> {
        if !self.wishes.allow_resident() {
            return None;
        }
        let longest_text = self.longest();
        let whole = |tokens| Placement { longest_text, ..Placement::resident(self.plan.config, tokens) };
        let of = |tokens| Some(whole(tokens)).filter(|placement| self.fits(placement));
        match self.asked_pass() {
            Some(tokens) => of(tokens).filter(|_| tokens <= LARGEST_PASS),
            None => self.sizes(USUAL_CHUNK.max(self.longest())).into_iter().rev().find_map(of),
        }
    }

    /// Passes to try where none was asked for, the larger first.
    fn automatic_passes(&self) -> Vec<usize> {
        let usual = STREAMED_PASS[usize::from(self.plan.settings.precision != Precision::Nf4)];
        let mut passes = vec![usual.max(self.longest())];
        while let Some(last) = passes.last().copied().filter(|last| *last / 2 > self.longest()) {
            passes.push(last / 2);
        }
        passes.push(self.longest());
        passes
    }

    /// Sizes from the longest text to `most` tokens, ascending: multiples of 512, and the longest text itself.
    fn sizes(&self, most: usize) -> Vec<usize> {
        let steps = self.longest().div_ceil(PASS_STEP)..=most.min(LARGEST_PASS) / PASS_STEP;
        let mut sizes: Vec<usize> = steps.map(|step| step * PASS_STEP).collect();
        if sizes.first() != Some(&self.longest()) {
            sizes.insert(0, self.longest());
        }
        sizes
    }

    /// The layouts for passes of so many tokens in chunks, or in one piece.
    pub(super) fn chunked(&self, tokens: usize) -> Vec<Placement> {
        let mut chunks = self.sizes(tokens.min(USUAL_CHUNK.max(self.longest())));
        if tokens <= LARGEST_PASS && !chunks.contains(&tokens) {
            chunks.push(tokens);
        }
        let mut found = Vec::new();
        for embedding in self.embeddings() {
            for parks_hidden in [false, true] {
                for chunk in chunks.iter().copied().filter(|chunk| !parks_hidden || 2 * chunk < tokens) {
                    // The larger the chunk, the more it takes.
                    let shape = shape(tokens, chunk, (embedding, parks_hidden), 1);
                    let Some(placement) = self.filled(shape) else { break };
                    found.push(placement);
                }
            }
        }
        found
    }

    /// The layouts whose layers come in pieces, for passes of these sizes, ascending: for cards that hold no two layers. More
    /// groups leave room for larger passes.
    pub(super) fn grouped(&self, sizes: &[usize]) -> Vec<Placement> {
        let mut found = Vec::new();
        for groups in self.groups().into_iter().skip(1) {
            for embedding in self.embeddings() {
                for tokens in sizes.iter().copied().filter(|tokens| *tokens <= LARGEST_PASS) {
                    let shape = shape(tokens, tokens, (embedding, false), groups);
                    let Some(placement) = self.filled(shape) else { break };
                    found.push(placement);
                }
            }
        }
        found
    }

    pub(super) fn filled(&self, shape: Placement) -> Option<Placement> {
        filled(self.plan, self.budget, self.wishes, shape)
    }

    /// Groups that experts may be cut into: 1, 2, 4 and so on, and each one by itself. Where no layer may leave the device,
    /// there is nothing to cut.
    pub(super) fn groups(&self) -> Vec<usize> {
        let layers = 0..self.plan.config.layers();
        if layers.into_iter().all(|layer| self.wishes.layer(layer) == Some(Place::Device)) {
            return vec![1];
        }
        let experts = self.plan.config.experts();
        let doubled = std::iter::successors(Some(1usize), |groups| groups.checked_mul(2));
        let mut groups: Vec<usize> = doubled.take_while(|groups| *groups < experts).collect();
        if experts > 0 {
            groups.push(experts);
        }
        groups
    }

    /// Where the embedding may be. It stays on the device where it is the language-model head too.
    pub(super) fn embeddings(&self) -> Vec<Place> {
        let is_head = self.plan.config.has_tied_head() && self.plan.settings.planes.nll;
        match self.wishes.embedding {
            _ if is_head => vec![Place::Device],
            Some(Place::Device) => vec![Place::Device],
            Some(Place::Host | Place::Disk) => vec![Place::Host],
            None if self.wishes.offload == Offload::Never => vec![Place::Device],
            None => vec![Place::Device, Place::Host],
        }
    }

    /// Of layouts about as fast as the fastest, the one that copies least, and of those the fastest.
    fn fastest(&self, found: Vec<Placement>, pace: &Pace<'_>) -> Option<Placement> {
        let rated = found.into_iter().map(|placement| {
            let (seconds, _) = pace.seconds(&placement);
            (placement.tokens_per_pass as f64 / seconds.max(f64::MIN_POSITIVE), placement)
        });
        let rated: Vec<(f64, Placement)> = rated.collect();
        let best = rated.iter().map(|(rate, _)| *rate).fold(0.0, f64::max);
        let equal = rated.into_iter().filter(|(rate, _)| *rate >= (1.0 - EQUAL) * best);
        let least = equal.min_by(|(rate_a, a), (rate_b, b)| {
            self.moved(a).total_cmp(&self.moved(b)).then(rate_b.total_cmp(rate_a))
        });
        least.map(|(_, placement)| placement)
    }

    /// Bytes that cross the bus, per token.
    fn moved(&self, placement: &Placement) -> f64 {
        let weights = self.plan.weights().layers.iter().zip(&placement.layers);
        let weights: u64 =
            weights.filter(|(_, p)| **p != Place::Device).map(|(bytes, _)| bytes.total()).sum();
        let row = (self.plan.config.hidden() * self.plan.element) as f64;
        let parked = if placement.parks_hidden { placement.layers.len() } else { 0 };
        let times = parked + usize::from(placement.embedding != Place::Device);
        weights as f64 / placement.tokens_per_pass as f64 + times as f64 * row
    }
}

/// A placement whose layers are not decided yet.
pub(super) fn shape(
    tokens_per_pass: usize,
    tokens_per_chunk: usize,
    (embedding, parks_hidden): (Place, bool),
    expert_groups: usize,
) -> Placement {
    Placement {
        layers: Vec::new(),
        embedding,
        tokens_per_pass,
        tokens_per_chunk,
        // Set with the layers.
        longest_text: 1,
        parks_hidden,
        expert_groups,
    }
}
