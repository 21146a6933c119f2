//! Feed-forward blocks: tokens grouped by expert, one expert's rows at a time.

use candle_core::{Device, Tensor};
use moetrace_routing::ExpertId;
use rayon::prelude::*;

use super::numbers::{exp, floats};
use super::product::{Rows, padded_rows, split};
use super::router::Routing;
use super::weights::{MoeWeights, SwiGlu};
use crate::ComputeDtype;

/// Most rows of one job: bounds its scratch, and cuts a popular expert's work so that threads share it.
pub(super) const JOB_ROWS: usize = 256;

/// One block on some rows of the input; results go to `out`, whose rows are padded for the products.
struct Job<'a> {
    block: &'a SwiGlu,
    rows: &'a [u32],
    out: &'a mut [f32],
}

/// A dense block on all rows, `[N, D]` to `[N, D]`.
pub(super) fn dense(x: &Tensor, block: &SwiGlu, compute: ComputeDtype) -> candle_core::Result<Tensor> {
    let (n, d) = x.dims2()?;
    let all: Vec<u32> = (0..n as u32).collect();
    let chunks: Vec<(&SwiGlu, &[u32])> = all.chunks(JOB_ROWS).map(|rows| (block, rows)).collect();
    let results = run(x, &chunks, compute)?;
    let mut out = Vec::with_capacity(n * d);
    for (chunk, start) in chunks.iter().zip(&results.starts) {
        out.extend_from_slice(&results.values[*start..][..chunk.1.len() * d]);
    }
    Tensor::from_vec(out, (n, d), &Device::Cpu)
}

/// The routed experts, summed in ascending expert id in f32, and the shared block after them; `gates` is the
/// shared block's gate `[N]`, if it has one.
pub(super) fn moe(
    x: &Tensor,
    weights: &MoeWeights,
    routing: &Routing,
    gates: Option<&[f32]>,
    compute: ComputeDtype,
) -> candle_core::Result<Tensor> {
    let (n, d) = x.dims2()?;
    let grouped = Grouped::new(&routing.experts, n, weights.experts.len());
    let all: Vec<u32> = if weights.shared.is_some() { (0..n as u32).collect() } else { Vec::new() };
    // Shared rows first: they are the largest jobs, and long jobs at the end leave threads idle.
    let shared = weights.shared.iter().flat_map(|block| all.chunks(JOB_ROWS).map(move |rows| (block, rows)));
    let shared: Vec<_> = shared.collect();
    let routed = weights.experts.iter().enumerate();
    let routed =
        routed.flat_map(|(e, block)| grouped.rows(e).chunks(JOB_ROWS).map(move |rows| (block, rows)));
    let chunks: Vec<(&SwiGlu, &[u32])> = shared.iter().copied().chain(routed).collect();
    let results = run(x, &chunks, compute)?;
    let (shared_starts, routed_starts) = results.starts.split_at(shared.len());
    let places = grouped.places(&chunks[shared.len()..], routed_starts, d);

    let k = routing.experts.len() / n.max(1);
    let mut out = vec![0f32; n * d];
    out.par_chunks_exact_mut(d).enumerate().with_min_len(16).for_each(|(row, out)| {
        for (place, rank) in &places[row * k..(row + 1) * k] {
            let weight = routing.weights[row * k + usize::from(*rank)];
            add_scaled(out, &results.values[*place..][..d], weight);
        }
        if let Some(start) = shared_starts.get(row / JOB_ROWS) {
            let values = &results.values[start + row % JOB_ROWS * d..][..d];
            let gate = gates.map_or(1.0, |gates| gates[row]);
            add_scaled(out, values, gate);
        }
        compute.round_slice(out);
    });
    Tensor::from_vec(out, (n, d), &Device::Cpu)
}

fn add_scaled(out: &mut [f32], values: &[f32], weight: f32) {
    for (out, value) in out.iter_mut().zip(values) {
        *out += weight * value;
    }
}

/// Rows in the order of the experts that they chose.
struct Grouped {
    /// `[N*K]`: rows, by expert and ascending within each.
    rows: Vec<u32>,
    /// The rank at which that row chose that expert.
    ranks: Vec<u16>,
    /// First entry of each expert; one more at the end.
    starts: Vec<usize>,
}

impl Grouped {
    fn new(experts: &[ExpertId], n: usize, e: usize) -> Self {
        let k = experts.len() / n.max(1);
        let mut starts = vec![0usize; e + 1];
        for id in experts {
            starts[id.index() + 1] += 1;
        }
        for expert in 0..e {
            starts[expert + 1] += starts[expert];
        }
        let mut next = starts.clone();
        let (mut rows, mut ranks) = (vec![0; experts.len()], vec![0; experts.len()]);
        for (place, id) in experts.iter().enumerate() {
            let to = next[id.index()];
            next[id.index()] += 1;
            (rows[to], ranks[to]) = ((place / k) as u32, (place % k) as u16);
        }
        Self { rows, ranks, starts }
    }

    fn rows(&self, expert: usize) -> &[u32] {
        &self.rows[self.starts[expert]..self.starts[expert + 1]]
    }

    /// Where each row's K results begin and at which rank each was chosen, by ascending expert, `[N*K]`.
    fn places(&self, chunks: &[(&SwiGlu, &[u32])], starts: &[usize], d: usize) -> Vec<(usize, u16)> {
        let n = self.rows.iter().max().map_or(0, |row| *row as usize + 1);
        let k = self.rows.len() / n.max(1);
        let mut filled = vec![0usize; n];
        let mut places = vec![(0, 0); n * k];
        let offsets = chunks.iter().zip(starts);
        let offsets = offsets.flat_map(|((_, rows), start)| (0..rows.len()).map(move |i| start + i * d));
        for ((row, rank), offset) in self.rows.iter().zip(&self.ranks).zip(offsets) {
            let row = *row as usize;
            places[row * k + filled[row]] = (offset, *rank);
            filled[row] += 1;
        }
        places
    }
}

/// Results of all jobs in one buffer, each job's rows padded.
struct Results {
    values: Vec<f32>,
    /// Where each job's first row begins.
    starts: Vec<usize>,
}

fn run(x: &Tensor, chunks: &[(&SwiGlu, &[u32])], compute: ComputeDtype) -> candle_core::Result<Results> {
    let (_, d) = x.dims2()?;
    let x = floats(x)?;
    let x: &[f32] = &x;
    let mut starts = Vec::with_capacity(chunks.len());
    let mut total = 0;
    for (block, rows) in chunks {
        starts.push(total);
        total += job_rows(block, rows.len()) * d;
    }
    let mut values = vec![0f32; total];
    let mut rest: &mut [f32] = &mut values;
    let mut jobs = Vec::with_capacity(chunks.len());
    for (block, rows) in chunks {
        let (out, after) = rest.split_at_mut(job_rows(block, rows.len()) * d);
        rest = after;
        jobs.push(Job { block, rows, out });
    }
    jobs.par_iter_mut().try_for_each(|job| swiglu(x, d, job, compute))?;
    Ok(Results { values, starts })
}

/// Rows that both products of a block accept.
fn job_rows(block: &SwiGlu, rows: usize) -> usize {
    padded_rows(rows, block.gate_up.outputs()).max(padded_rows(rows, block.down.outputs()))
}

/// `down(silu(gate x) * up x)` on the job's rows.
fn swiglu(x: &[f32], d: usize, job: &mut Job<'_>, compute: ComputeDtype) -> candle_core::Result<()> {
    let two_f = job.block.gate_up.outputs();
    let rows = job.out.len() / d;
    let mut input = vec![0f32; rows * d];
    for (input, row) in input.chunks_exact_mut(d).zip(job.rows) {
        input.copy_from_slice(&x[*row as usize * d..][..d]);
    }
    let mut both = vec![0f32; rows * two_f];
    job.block.gate_up.multiply(Rows::dense(&input, rows, d), &mut both, compute, split(1))?;
    let f = two_f / 2;
    for both in both.chunks_exact_mut(two_f) {
        let (gate, up) = both.split_at_mut(f);
        for (gate, up) in gate.iter_mut().zip(up) {
            *gate = *gate / (1.0 + exp(-*gate)) * *up;
        }
        compute.round_slice(gate);
    }
    let active = Rows { values: &both, count: rows, columns: f, stride: two_f };
    job.block.down.multiply(active, job.out, compute, split(1))?;
    compute.round_slice(job.out);
    Ok(())
}
