//! Attention against its definition in f64, and spans alone against spans among others.

use half::{bf16, f16};
use moetrace_cuda::{
    Architecture, Attention, AttentionHeads, AttentionKernel, AttentionRows, CudaError, Sequences,
};

use crate::support::{Gpu, Random, Value, assert_same, gpu, poisoned, results};

/// Around a tile's edges: 64 keys, 128 queries.
const LENGTHS: [usize; 9] = [1, 63, 64, 65, 511, 128, 129, 2, 200];
/// Columns between rows that belong to nobody; a multiple of 16 bytes.
const GAP: usize = 8;

const fn heads(heads: usize, kv_heads: usize, width: usize) -> AttentionHeads {
    AttentionHeads { heads, kv_heads, width }
}

fn row_width(of: AttentionHeads) -> usize {
    (of.heads + 2 * of.kv_heads) * of.width
}

/// Rows `[N, queries | keys | values | gap]`; the last row has no gap, and gaps are poisoned. Queries are larger than
/// keys, so that some weights are near 1.
fn random_rows<T: Value>(random: &mut Random, of: AttentionHeads, n: usize) -> Vec<T> {
    let mut rows = Vec::with_capacity(n * (row_width(of) + GAP));
    for _ in 0..n {
        rows.extend(random.elements::<T>(of.heads * of.width, 2.0));
        rows.extend(random.elements::<T>(2 * of.kv_heads * of.width, 1.0));
        rows.extend([T::POISON; GAP]);
    }
    rows.truncate(rows.len() - GAP);
    rows
}

/// `[N, heads, width]` of rows as `random_rows` makes them.
fn attend<T: Value>(
    gpu: &Gpu,
    (kernel, of): (&Attention<T>, AttentionHeads),
    rows: &[T],
    lengths: &[usize],
) -> Vec<T> {
    let n: usize = lengths.iter().sum();
    let mut sequences = Sequences::new(&gpu.device, n, lengths.len()).unwrap();
    sequences.set(&gpu.device, lengths).unwrap();
    let on = gpu.device.upload(rows).unwrap();
    let (q, kv) = (of.heads * of.width, of.kv_heads * of.width);
    let stride = row_width(of) + GAP;
    let rows = AttentionRows {
        queries: on.part(0..rows.len() - 2 * kv).unwrap(),
        keys: on.part(q..rows.len() - kv).unwrap(),
        values: on.part(q + kv..rows.len()).unwrap(),
        stride,
    };
    let mut out = poisoned::<T>(gpu, n * q);
    kernel.run(&rows, &sequences, &mut out.part_mut(0..n * q).unwrap()).unwrap();
    results(gpu, &out)
}

/// The definition, with weights as `round` leaves them.
fn expected<T: Value>(
    of: AttentionHeads,
    rows: &[T],
    lengths: &[usize],
    round: impl Fn(f64) -> f64,
) -> Vec<f64> {
    let AttentionHeads { heads, kv_heads, width } = of;
    let n: usize = lengths.iter().sum();
    let mut out = vec![0.0; n * heads * width];
    let mut start = 0;
    for &length in lengths {
        for head in 0..heads {
            let kv_head = head / (heads / kv_heads);
            let [q, k, v] = [head, heads + kv_head, heads + kv_heads + kv_head].map(|place| -> Vec<f64> {
                let row =
                    |row: usize| &rows[(start + row) * (row_width(of) + GAP) + place * width..][..width];
                (0..length).flat_map(|i| row(i).iter().map(|x| f64::from(x.wide()))).collect()
            });
            for (row, q) in q.chunks_exact(width).enumerate() {
                let score =
                    |k: &[f64]| q.iter().zip(k).map(|(q, k)| q * k).sum::<f64>() / (width as f64).sqrt();
                let scores: Vec<f64> = k.chunks_exact(width).take(row + 1).map(score).collect();
                let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let sum: f64 = scores.iter().map(|score| (score - largest).exp()).sum();
                let out = &mut out[((start + row) * heads + head) * width..][..width];
                for (score, v) in scores.iter().zip(v.chunks_exact(width)) {
                    let weight = round((score - largest).exp() / sum);
                    out.iter_mut().zip(v).for_each(|(out, v)| *out += weight * v);
                }
            }
        }
        start += length;
    }
    out
}

/// Every head of every row, as a distance in parts of its length, is within `limit`.
fn assert_near<T: Value>(found: &[T], expected: &[f64], width: usize, limit: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (place, (found, expected)) in found.chunks(width).zip(expected.chunks(width)).enumerate() {
        let apart: f64 = found
            .iter()
            .zip(expected)
            .map(|(found, expected)| (f64::from(found.wide()) - expected).powi(2))
            .sum();
        let length: f64 = expected.iter().map(|value| value * value).sum();
        let distance = (apart / length).sqrt();
        assert!(distance <= limit, "{what}, head {place} of all rows: {distance}, expected at most {limit}");
    }
}

/// The kernels for tensor cores on this GPU, or none without one.
fn fast_kernels() -> &'static [AttentionKernel] {
    let both = &[AttentionKernel::Mma, AttentionKernel::Wgmma];
    match gpu().map(|gpu| gpu.device.architecture()) {
        None => &[],
        Some(Architecture::Sm90a) => both,
        Some(_) => &both[..1],
    }
}

fn attends<T: Value>(kernels: &[AttentionKernel], of: AttentionHeads, lengths: &[usize], limit: f64) {
    let n: usize = lengths.iter().sum();
    let rows: Vec<T> = random_rows(&mut Random(51 + n as u64), of, n);
    attends_to(kernels, of, (&rows, lengths), limit);
}

fn attends_to<T: Value>(
    kernels: &[AttentionKernel],
    of: AttentionHeads,
    (rows, lengths): (&[T], &[usize]),
    limit: f64,
) {
    let Some(gpu) = gpu() else { return };
    let expected = expected(of, rows, lengths, |weight| weight);
    for kernel in kernels {
        let what = format!("{kernel:?} {} {of:?} {lengths:?}", T::NAME);
        let kernel = Attention::<T>::with_kernel(&gpu.device, &gpu.compiler, of, *kernel).unwrap();
        let found = attend(gpu, (&kernel, of), rows, lengths);
        assert_near(&found, &expected, of.width, limit, &what);
        assert_same(&attend(gpu, (&kernel, of), rows, lengths), &found, &what);
    }
}

/// Keys grow along the span, and with them the largest score: what was summed before shrinks again and again.
fn attends_to_growing_keys<T: Value>(of: AttentionHeads, limit: f64) {
    let length = 700;
    let mut rows: Vec<T> = random_rows(&mut Random(53), of, length);
    for (row, elements) in rows.chunks_mut(row_width(of) + GAP).enumerate() {
        for key in &mut elements[of.heads * of.width..][..of.kv_heads * of.width] {
            *key = T::of(key.wide() * (1.0 + row as f32 / 20.0));
        }
    }
    attends_to(fast_kernels(), of, (&rows, &[length]), limit);
}

#[test]
fn fast_attention_keeps_up_with_growing_scores() {
    for of in [heads(2, 1, 128), heads(2, 1, 64)] {
        attends_to_growing_keys::<bf16>(of, 1e-2);
        attends_to_growing_keys::<f16>(of, 2e-3);
    }
}

#[test]
fn fast_attention_is_near_the_definition() {
    for of in [heads(4, 1, 128), heads(3, 3, 128), heads(4, 1, 64), heads(2, 2, 64)] {
        attends::<bf16>(fast_kernels(), of, &LENGTHS, 1e-2);
        attends::<f16>(fast_kernels(), of, &LENGTHS, 2e-3);
    }
}

#[test]
fn fast_attention_over_a_long_span_is_near_the_definition() {
    attends::<bf16>(fast_kernels(), heads(1, 1, 128), &[4097], 1e-2);
    attends::<f16>(fast_kernels(), heads(1, 1, 64), &[4097], 2e-3);
}

#[test]
fn plain_attention_is_near_the_definition() {
    let plain = &[AttentionKernel::Plain];
    for of in [heads(4, 1, 6), heads(2, 2, 96), heads(4, 2, 256), heads(1, 1, 128)] {
        attends::<f32>(plain, of, &LENGTHS, 1e-5);
        attends::<bf16>(plain, of, &LENGTHS[..4], 1e-2);
        attends::<f16>(plain, of, &LENGTHS[..4], 2e-3);
    }
}

#[test]
fn plain_attention_over_a_long_span_is_near_the_definition() {
    attends::<f32>(&[AttentionKernel::Plain], heads(1, 1, 96), &[4097], 1e-5);
}

/// All but the few results whose own rounding, or that of a weight, falls on the other side.
fn rounds_weights_after_division<T: Value>() {
    let Some(gpu) = gpu() else { return };
    let (of, lengths) = (heads(4, 2, 96), [130, 65]);
    let rows: Vec<T> = random_rows(&mut Random(54), of, 195);
    let round = |weight| f64::from(T::of(weight as f32).wide());
    let expected = expected(of, &rows, &lengths, round);
    let kernel = Attention::<T>::with_kernel(&gpu.device, &gpu.compiler, of, AttentionKernel::Plain).unwrap();
    let found = attend(gpu, (&kernel, of), &rows, &lengths);
    let differ = found
        .iter()
        .zip(&expected)
        .filter(|(found, expected)| found.bits() != T::of(**expected as f32).bits());
    let differ = differ.count();
    assert!(differ * 100 < found.len(), "{}: {differ} of {} differ", T::NAME, found.len());
}

#[test]
fn plain_attention_divides_rounds_and_multiplies_in_this_order() {
    rounds_weights_after_division::<bf16>();
    rounds_weights_after_division::<f16>();
}

/// The spans in order, in another order, each alone, and beside a span of what is not a number.
fn spans_keep_to_themselves<T: Value>(kernel: AttentionKernel, of: AttentionHeads) {
    let Some(gpu) = gpu() else { return };
    let kernel = Attention::<T>::with_kernel(&gpu.device, &gpu.compiler, of, kernel).unwrap();
    let mut random = Random(52);
    let mut spans: Vec<Vec<T>> = LENGTHS.iter().map(|length| random_rows(&mut random, of, *length)).collect();
    let alone: Vec<Vec<T>> =
        spans.iter().zip(LENGTHS).map(|(rows, n)| attend(gpu, (&kernel, of), rows, &[n])).collect();
    spans.push(vec![T::of(f32::NAN); 70 * (row_width(of) + GAP) - GAP]);
    for order in [[9, 0, 1, 2, 3, 4, 5, 6, 7, 8], [4, 9, 8, 3, 0, 7, 2, 1, 6, 5]] {
        let lengths = order.map(|span| LENGTHS.get(span).copied().unwrap_or(70));
        let rows = order.map(|span| spans[span].clone()).join(&[T::POISON; GAP][..]);
        let mut among = &attend(gpu, (&kernel, of), &rows, &lengths)[..];
        for (span, length) in order.into_iter().zip(lengths) {
            let (own, others) = among.split_at(length * of.heads * of.width);
            among = others;
            if let Some(alone) = alone.get(span) {
                assert_same(own, alone, &format!("{} span {span} of {order:?}", T::NAME));
            }
        }
    }
}

#[test]
fn a_span_has_the_same_bits_alone_and_among_others() {
    for kernel in fast_kernels() {
        spans_keep_to_themselves::<bf16>(*kernel, heads(2, 1, 128));
        spans_keep_to_themselves::<f16>(*kernel, heads(2, 2, 64));
    }
    spans_keep_to_themselves::<f32>(AttentionKernel::Plain, heads(2, 1, 96));
}

#[test]
fn passes_follow_each_other_in_the_same_room_and_what_does_not_fit_is_refused() {
    let Some(gpu) = gpu() else { return };
    let of = heads(2, 1, 64);
    let refuse = |of| Attention::<bf16>::new(&gpu.device, &gpu.compiler, of).err();
    for of in [heads(3, 2, 64), heads(2, 0, 64), heads(0, 0, 64), heads(1, 1, 63), heads(1, 1, 258)] {
        assert!(matches!(refuse(of), Some(CudaError::Value { .. })), "{of:?}");
    }
    let kernel = Attention::<bf16>::new(&gpu.device, &gpu.compiler, of).unwrap();
    let mut sequences = Sequences::new(&gpu.device, 300, 2).unwrap();
    let on = gpu.device.zeros::<bf16>(300 * 256 + 8).unwrap();
    let mut out = gpu.device.zeros::<bf16>(300 * 128).unwrap();
    let rows = |first: usize, stride| AttentionRows {
        queries: on.part(first..first + 300 * 256).unwrap(),
        keys: on.part(first + 128..first + 300 * 256).unwrap(),
        values: on.part(first + 192..first + 300 * 256).unwrap(),
        stride,
    };
    let mut run = |sequences: &Sequences, first, stride, length| {
        kernel.run(&rows(first, stride), sequences, &mut out.part_mut(0..length).unwrap())
    };
    // Before the first pass there are no tokens.
    assert!(matches!(run(&sequences, 0, 256, 0), Err(CudaError::Length { .. })));
    for lengths in [&[300][..], &[1, 299], &[7], &[0, 5]] {
        sequences.set(&gpu.device, lengths).unwrap();
        let n: usize = lengths.iter().sum();
        assert_eq!(sequences.tokens(), n);
    }
    for lengths in [&[301][..], &[1, 300], &[1, 1, 1], &[usize::MAX, 2]] {
        assert!(matches!(sequences.set(&gpu.device, lengths), Err(CudaError::Value { .. })), "{lengths:?}");
    }
    sequences.set(&gpu.device, &[300]).unwrap();
    assert!(matches!(run(&sequences, 0, 256, 299 * 128), Err(CudaError::Length { .. })));
    assert!(matches!(run(&sequences, 0, 272, 300 * 128), Err(CudaError::Length { .. })));
    assert!(matches!(run(&sequences, 0, 120, 300 * 128), Err(CudaError::Value { .. })));
    assert!(matches!(run(&sequences, 0, 252, 300 * 128), Err(CudaError::Value { .. })));
    assert!(matches!(run(&sequences, 4, 256, 300 * 128), Err(CudaError::Alignment { .. })));
    gpu.device.synchronise().unwrap();
}
