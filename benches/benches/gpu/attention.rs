//! Causal attention of texts of 512 tokens; operations that the mask leaves out are not counted.

use criterion::Criterion;
use half::bf16;
use moetrace_cuda::{Attention, AttentionHeads, AttentionRows, Sequences};

use crate::place::{Ceilings, Place, Work};
use crate::shapes::{HEAD, HEADS, SPAN, TOKENS};

/// Queries, keys and values as one product leaves them.
pub(crate) fn attention(place: &Place, ceilings: &Ceilings, criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("attention");
    let (device, columns) = (&place.device, HEADS * HEAD);
    for n in TOKENS {
        let pairs = n / SPAN * SPAN * (SPAN + 1) / 2;
        let work = Work::Flops(4 * columns * pairs, ceilings);
        place.measure(&mut group, ("attention", Some(n)), work, || {
            let shape = AttentionHeads { heads: HEADS, kv_heads: HEADS, width: HEAD };
            let kernel = Attention::<bf16>::new(device, &place.compiler, shape)?;
            let mut sequences = Sequences::new(device, n, n / SPAN)?;
            sequences.set(device, &vec![SPAN; n / SPAN])?;
            let qkv = place.elements(n * 3 * columns)?;
            let mut out = device.zeros::<bf16>(n * columns)?;
            Ok(Box::new(move || {
                let rows = AttentionRows {
                    queries: qkv.all(),
                    keys: qkv.part(columns..qkv.len())?,
                    values: qkv.part(2 * columns..qkv.len())?,
                    stride: 3 * columns,
                };
                kernel.run(&rows, &sequences, &mut out.all_mut())
            }))
        });
    }
    group.finish();
}
