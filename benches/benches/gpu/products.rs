//! Products: the library's, and those of all experts in one launch.

use criterion::Criterion;
use half::bf16;
use moetrace_cuda::{GatheredRows, GroupedProduct, GroupedRows, Product, ProductShape};

use crate::place::{Ceilings, Place, Work};
use crate::report::line;
use crate::routed::Choices;
use crate::shapes::{CHOSEN, DENSE, EXPERT, EXPERTS, HEAD, HEADS, HIDDEN, SHARED, TOKENS};

/// Name, outputs, inputs.
const SHAPES: [(&str, usize, usize); 6] = [
    ("q, k, v product", 3 * HEADS * HEAD, HIDDEN),
    ("output product", HIDDEN, HEADS * HEAD),
    ("shared gate, up", 2 * SHARED, HIDDEN),
    ("shared down", HIDDEN, SHARED),
    ("dense gate, up", 2 * DENSE, HIDDEN),
    ("dense down", HIDDEN, DENSE),
];

/// Products of every row of a pass with one matrix.
pub(crate) fn dense(place: &Place, ceilings: &Ceilings, criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("product");
    for n in TOKENS {
        for (name, outputs, inputs) in SHAPES {
            let work = Work::Flops(2 * n * outputs * inputs, ceilings);
            place.measure(&mut group, (name, Some(n)), work, || {
                let shape = ProductShape { outputs, inputs, biased: false, usual_rows: n };
                let product = Product::<bf16>::new(&place.device, &place.compiler, &place.library, shape)?;
                let (x, w) = (place.elements(n * inputs)?, place.elements(outputs * inputs)?);
                let mut out = place.device.zeros::<bf16>(n * outputs)?;
                Ok(Box::new(move || product.run(x.all(), w.all(), None, &mut out.all_mut())))
            });
        }
    }
    group.finish();
}

/// Products of rows with the matrices of their experts.
pub(crate) fn grouped(place: &Place, ceilings: &Ceilings, criterion: &mut Criterion) {
    let device = &place.device;
    if !GroupedProduct::<bf16>::supports(device, HIDDEN, EXPERT) {
        line("skipped", &["grouped", "this GPU has no grouped product"]);
        return;
    }
    let mut group = criterion.benchmark_group("grouped");
    for n in TOKENS {
        let rows = n * CHOSEN;
        let one = 2 * rows * HIDDEN * EXPERT;
        let both = Work::Flops(2 * one, ceilings);
        let new = || GroupedProduct::<bf16>::new(device, &place.compiler);
        place.measure(&mut group, ("experts' gate, up, grouped", Some(n)), both, || {
            let (product, choices) = (new()?, Choices::new(place, n)?);
            let (x, w) = (place.elements(rows * HIDDEN)?, place.elements(EXPERTS * 2 * EXPERT * HIDDEN)?);
            let mut out = device.zeros::<bf16>(rows * EXPERT)?;
            Ok(Box::new(move || {
                let grouped = GroupedRows { rows: x.all(), depth: HIDDEN, offsets: choices.offsets.all() };
                product.gate_up(&grouped, w.all(), EXPERT, &mut out.all_mut())
            }))
        });
        place.measure(&mut group, ("experts' gate, up, gathered", Some(n)), both, || {
            let (product, choices) = (new()?, Choices::new(place, n)?);
            let (x, w) = (place.elements(n * HIDDEN)?, place.elements(EXPERTS * 2 * EXPERT * HIDDEN)?);
            let mut out = device.zeros::<bf16>(rows * EXPERT)?;
            Ok(Box::new(move || {
                let (tokens, depth) = (x.all(), HIDDEN);
                let (sources, offsets) = (choices.sources.all(), choices.offsets.all());
                let gathered = GatheredRows { tokens, depth, sources, offsets };
                product.gate_up_gathered(&gathered, w.all(), EXPERT, &mut out.all_mut())
            }))
        });
        place.measure(&mut group, ("experts' down", Some(n)), Work::Flops(one, ceilings), || {
            let (product, choices) = (new()?, Choices::new(place, n)?);
            let (x, w) = (place.elements(rows * EXPERT)?, place.elements(EXPERTS * HIDDEN * EXPERT)?);
            let mut out = device.zeros::<bf16>(rows * HIDDEN)?;
            Ok(Box::new(move || {
                let grouped = GroupedRows { rows: x.all(), depth: EXPERT, offsets: choices.offsets.all() };
                product.down(&grouped, w.all(), HIDDEN, &mut out.all_mut())
            }))
        });
    }
    group.finish();
}
