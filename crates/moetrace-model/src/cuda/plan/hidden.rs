//! The smallest pass at which copies hide behind arithmetic.

use super::super::memory::PASS_STEP;
use super::speed::Pace;
use crate::cuda::placement::Placement;

/// Most tokens of a pass that is looked at.
pub const MOST_PASS: usize = 1 << 20;

/// What waiting may still take of a pass that hides copies.
const HIDDEN: f64 = 0.01;

/// The least multiple of 512 tokens at which a pass of this placement waits for copies during 1 % of its time at most.
/// `None` where nothing is copied, or where no pass is long enough: hidden states that are parked grow with it.
pub(super) fn smallest_hidden_pass(pace: &Pace<'_>, placement: &Placement) -> Option<usize> {
    if placement.is_resident() {
        return None;
    }
    let mut of = placement.clone();
    let mut is_hidden = |steps: usize| {
        of.tokens_per_pass = steps * PASS_STEP;
        // With groups of experts a pass is one chunk.
        of.tokens_per_chunk = match placement.expert_groups {
            0 | 1 => placement.tokens_per_chunk.min(of.tokens_per_pass),
            _ => of.tokens_per_pass,
        };
        let (pass, compute) = pace.seconds(&of);
        compute >= (1.0 - HIDDEN) * pass
    };
    let (mut from, mut to) = (0, MOST_PASS / PASS_STEP);
    if !is_hidden(to) {
        return None;
    }
    while to - from > 1 {
        let middle = from.midpoint(to);
        if is_hidden(middle) { to = middle } else { from = middle }
    }
    Some(to * PASS_STEP)
}
