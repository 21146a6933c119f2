//! The language-model head, a few rows at a time, and the loss of each token.

use candle_core::{DType, Tensor};
use moetrace_routing::TokenBatch;
use rayon::ThreadPool;
use rayon::prelude::*;

use super::numbers::{exp, floats, maximum};
use super::probe::{Probe, ProbePoint};
use super::product::linear;
use crate::ModelError;

/// Rows whose logits are held at once: at 151,936 vocabulary entries 128 rows take 78 MB.
pub(super) const HEAD_ROWS: usize = 128;

/// Losses in nats, `[N]`: of each row's token given those before it in its span, NaN where a span begins.
/// `x` is the output of the final norm `[N, D]`, `head` `[V, D]`. The probe, if any, sees the logits.
pub(super) fn losses(
    x: &Tensor,
    head: &Tensor,
    batch: &TokenBatch,
    (pool, threads): (&ThreadPool, usize),
    mut probe: Option<&mut dyn Probe>,
) -> Result<Vec<f32>, ModelError> {
    let n = batch.len();
    let head = head.to_dtype(DType::F32)?;
    let mut losses = vec![f32::NAN; n];
    let mut targets = vec![None; n];
    for span in batch.spans() {
        let rows = span.rows();
        targets[rows.clone()][..span.len - 1].clone_from_slice(
            &batch.token_ids()[rows][1..].iter().map(|id| Some(id.index())).collect::<Vec<_>>(),
        );
    }
    for first in (0..n).step_by(HEAD_ROWS) {
        let rows = HEAD_ROWS.min(n - first);
        let logits = pool.install(|| linear(&x.narrow(0, first, rows)?, &head, threads))?;
        let (logits, vocab) = (floats(&logits)?, logits.dims2()?.1);
        if let Some(probe) = probe.as_deref_mut() {
            probe.observe(ProbePoint::Logits, first..first + rows, &logits);
        }
        let logits: &[f32] = &logits;
        let rows = logits.par_chunks_exact(vocab).zip(&targets[first..first + rows]);
        let some: Vec<f32> = pool.install(|| {
            rows.map(|(logits, target)| target.map_or(f32::NAN, |target| loss(logits, target))).collect()
        });
        for (row, loss) in some.into_iter().enumerate() {
            if targets[first + row].is_some() {
                if !loss.is_finite() {
                    return Err(ModelError::LossNotFinite { row: first + row + 1, found: loss });
                }
                losses[first + row + 1] = loss;
            }
        }
    }
    Ok(losses)
}

/// ln of the sum of e^logit, less the target's logit; the sum in f64, since it has V terms.
fn loss(logits: &[f32], target: usize) -> f32 {
    let largest = maximum(logits);
    let sum: f64 = logits
        .chunks(1024)
        .map(|part| part.iter().map(|l| exp(l - largest)).sum::<f32>())
        .map(f64::from)
        .sum();
    (sum.ln() + f64::from(largest) - f64::from(logits[target])) as f32
}
