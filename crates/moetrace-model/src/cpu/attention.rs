//! Causal attention inside each sample of a packed batch.

use candle_core::{Device, Tensor};
use moetrace_routing::Span;
use rayon::prelude::*;

use super::numbers::{exp_and_sum, floats, maximum};
use super::product::{Places, Rows, split, times, times_transposed};
use crate::ComputeDtype;

/// Query rows whose scores are held at once: memory per thread is this times the longest sample.
pub(super) const QUERY_BLOCK: usize = 64;

/// Widths and counts of the heads.
#[derive(Debug, Clone, Copy)]
pub(super) struct HeadShape {
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    pub(super) width: usize,
}

/// q `[N, H, w]`, k and v `[N, Hkv, w]`, all rotated, to `[N, H*w]`. Each row attends to the rows of its own
/// span up to itself. Each span and head is one job whose arithmetic depends on that span alone.
pub(super) fn attend(
    [q, k, v]: [&Tensor; 3],
    spans: &[Span],
    shape: HeadShape,
    compute: ComputeDtype,
) -> candle_core::Result<Tensor> {
    let (q, k, v) = (floats(q)?, floats(k)?, floats(v)?);
    let (q, k, v): (&[f32], &[f32], &[f32]) = (&q, &k, &v);
    let n: usize = spans.iter().map(|span| span.len).sum();
    let width = shape.heads * shape.width;
    let mut out = vec![0f32; n * width];
    let jobs: Vec<(&Span, usize)> =
        spans.iter().flat_map(|span| (0..shape.heads).map(move |head| (span, head))).collect();
    let done: Vec<Vec<f32>> =
        jobs.par_iter().map(|(span, head)| one_head([q, k, v], span, *head, shape, compute)).collect();
    for ((span, head), values) in jobs.iter().zip(&done) {
        for (row, values) in span.rows().zip(values.chunks_exact(shape.width)) {
            out[row * width + head * shape.width..][..shape.width].copy_from_slice(values);
        }
    }
    Tensor::from_vec(out, (n, width), &Device::Cpu)
}

/// One head of one span, `[len, w]`.
fn one_head(
    [q, k, v]: [&[f32]; 3],
    span: &Span,
    head: usize,
    shape: HeadShape,
    compute: ComputeDtype,
) -> Vec<f32> {
    let (heads, width) = (shape.heads, shape.width);
    let kv_head = head / (heads / shape.kv_heads);
    let (q_stride, kv_stride) = (heads * width, shape.kv_heads * width);
    let scale = 1.0 / (width as f32).sqrt();
    let mut out = vec![0f32; span.len * width];
    let mut scores = Vec::new();
    for first in (0..span.len).step_by(QUERY_BLOCK) {
        let rows = QUERY_BLOCK.min(span.len - first);
        let keys = first + rows;
        let queries = &q[(span.start + first) * q_stride + head * width..];
        let queries = Rows { values: queries, count: rows, columns: width, stride: q_stride };
        let kv = |values| Rows { values, count: keys, columns: width, stride: kv_stride };
        let start = span.start * kv_stride + kv_head * width;
        scores.clear();
        scores.resize(rows * keys, 0f32);
        times_transposed(queries, kv(&k[start..]), Places::dense(&mut scores, keys), split(1));
        for (row, scores) in scores.chunks_exact_mut(keys).enumerate() {
            let (seen, future) = scores.split_at_mut(first + row + 1);
            softmax(seen, scale);
            compute.round_slice(seen);
            future.fill(0.0);
        }
        let out = &mut out[first * width..][..rows * width];
        times(Rows::dense(&scores, rows, keys), kv(&v[start..]), Places::dense(out, width), split(1));
    }
    compute.round_slice(&mut out);
    out
}

fn softmax(scores: &mut [f32], scale: f32) {
    for score in scores.iter_mut() {
        *score *= scale;
    }
    let largest = maximum(scores);
    let sum = exp_and_sum(scores, largest);
    for score in scores {
        *score /= sum;
    }
}
