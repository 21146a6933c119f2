//! One layer of one sample, counted token by token.

use moetrace_routing::ExpertId;

use super::{lags::LagCounter, recency::RecencyStack, totals::LayerTotals};

/// What is known of one expert within the sample. Tokens are numbered from 1.
#[derive(Debug, Clone, Copy, Default)]
struct Visits {
    /// The last token that chose it; 0 if there is none.
    last: u32,
    /// The first token of the run that `last` is in.
    run_start: u32,
    /// Tokens that chose it.
    uses: u32,
    /// Bit b: whether the token b + 1 before `last` chose it.
    history: u64,
}

/// The state of a sample in the middle of its tokens; reused.
#[derive(Debug, Clone)]
pub(super) struct Sequence {
    /// `[E]`.
    visits: Vec<Visits>,
    /// Experts with a use.
    used: Vec<u16>,
    stack: RecencyStack,
    lags: LagCounter,
}

impl Sequence {
    pub(super) fn new(experts: usize) -> Self {
        Self {
            visits: vec![Visits::default(); experts],
            used: Vec::with_capacity(experts),
            stack: RecencyStack::new(experts),
            lags: LagCounter::new(),
        }
    }

    /// Counts a sample, `chosen` being `[T, K]` ids below E; its first token stands at `first_position`.
    pub(super) fn count(
        &mut self,
        chosen: &[ExpertId],
        k: usize,
        first_position: usize,
        totals: &mut LayerTotals,
    ) {
        let mut before: &[ExpertId] = &[];
        for (t, ids) in chosen.chunks_exact(k).enumerate() {
            let place = totals.positions.at(first_position + t);
            place.tokens += 1;
            // All look-ups first: a token's own experts do not push each other out.
            for id in ids {
                place.distances[self.stack.depth(id.index())] += 1;
            }
            let mut reused = 0;
            for id in ids {
                reused += visit(
                    &mut self.visits[id.index()],
                    t as u32 + 1,
                    id.0,
                    &mut self.used,
                    totals,
                    &mut self.lags,
                );
            }
            // The first rank last, so that it stays longest.
            ids.iter().rev().for_each(|id| self.stack.touch(id.index()));
            if t > 0 {
                totals.add_pair(first_position + t, reused, before, ids);
            }
            before = ids;
        }
        self.finish(chosen.len() / k, totals);
    }

    /// The sample ends after `tokens` tokens.
    fn finish(&mut self, tokens: usize, totals: &mut LayerTotals) {
        for &expert in &self.used {
            let visits = std::mem::take(&mut self.visits[usize::from(expert)]);
            totals.loads[usize::from(expert)] += u64::from(visits.uses);
            totals.runs.add((visits.last - visits.run_start) as usize + 1);
            totals.gaps.add(tokens - visits.last as usize);
        }
        totals.gaps.add_many(tokens, (self.visits.len() - self.used.len()) as u64);
        totals.add_length(tokens);
        self.stack.clear(&self.used);
        self.used.clear();
    }

    /// What the lag counter holds goes to the layer it was counted in.
    pub(super) fn end_layer(&mut self, totals: &mut LayerTotals) {
        self.lags.move_to(&mut totals.lags);
    }
}

/// Token `now` chooses an expert; gives 1 if the token before it did too.
#[inline]
fn visit(
    visits: &mut Visits,
    now: u32,
    expert: u16,
    used: &mut Vec<u16>,
    totals: &mut LayerTotals,
    lags: &mut LagCounter,
) -> u64 {
    let Visits { last, run_start, uses, history } = *visits;
    let since = now - last;
    if last == 0 {
        used.push(expert);
        totals.gaps.add(since as usize - 1);
        *visits = Visits { last: now, run_start: now, uses: 1, history: 0 };
        return 0;
    }
    let history = if since > 64 { 0 } else { ((history << (since - 1)) << 1) | (1 << (since - 1)) };
    lags.add(history);
    // Whether a run goes on cannot be predicted: an absence of 0 tokens and a run counted 0 times cost less than a
    // branch.
    let goes_on = since == 1;
    totals.gaps.add(since as usize - 1);
    totals.runs.add_many((last - run_start) as usize + 1, u64::from(!goes_on));
    *visits = Visits { last: now, run_start: if goes_on { run_start } else { now }, uses: uses + 1, history };
    u64::from(goes_on)
}
