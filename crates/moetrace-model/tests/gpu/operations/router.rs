//! Choices against the definition in f64.

use half::{bf16, f16};
use moetrace_cuda::{Router, RouterOutput, RouterSettings};

use crate::support::{Gpu, Random, Value, gpu, poisoned, results};

/// (N, E, K): around every number of experts a lane.
const SHAPES: [(usize, usize, usize); 10] = [
    (1, 1, 1),
    (9, 2, 2),
    (1000, 8, 2),
    (7, 32, 32),
    (65, 33, 5),
    (300, 60, 4),
    (4097, 64, 6),
    (129, 128, 8),
    (31, 256, 8),
    (77, 511, 10),
];

struct Routed {
    experts: Vec<u16>,
    weights: Vec<f32>,
    margins: Vec<f32>,
    entropies: Vec<f32>,
    logits: Vec<f32>,
    first_bad: u32,
}

fn route<T: Value>(gpu: &Gpu, logits: &[f32], settings: RouterSettings) -> Routed {
    let (device, e, k) = (&gpu.device, settings.experts, settings.chosen);
    let n = logits.len() / e;
    let kernel = Router::<T>::new(device, &gpu.compiler, settings).unwrap();
    let mut experts = device.upload(&vec![0xB7B7u16; n * k + 64]).unwrap();
    let mut planes = [n * k, n, n, n * e].map(|length| poisoned::<f32>(gpu, length));
    let mut first_bad = device.upload(&[u32::MAX]).unwrap();
    let from = device.upload(logits).unwrap();
    let [weights, margins, entropies, rounded] = &mut planes;
    let mut out = RouterOutput {
        experts: experts.part_mut(0..n * k).unwrap(),
        weights: weights.part_mut(0..n * k).unwrap(),
        margins: margins.part_mut(0..n).unwrap(),
        entropies: entropies.part_mut(0..n).unwrap(),
        logits: Some(rounded.part_mut(0..n * e).unwrap()),
        first_bad: first_bad.all_mut(),
    };
    kernel.run(from.all(), &mut out).unwrap();
    let mut experts = device.download(experts.all()).unwrap();
    assert!(experts.split_off(n * k).iter().all(|id| *id == 0xB7B7), "written past the end");
    let [weights, margins, entropies, logits] = planes.map(|plane| results(gpu, &plane));
    let first_bad = device.download(first_bad.all()).unwrap()[0];
    Routed { experts, weights, margins, entropies, logits, first_bad }
}

/// One token's choice by the definition. Logits are multiples of 1/64, so that scores of different logits stay
/// different when rounded, and the order of scores is that of logits.
fn check<T: Value>(logits: &[f32], settings: RouterSettings, token: usize, routed: &Routed) {
    let (e, k) = (settings.experts, settings.chosen);
    let round = |asked: bool, value: f64| if asked { f64::from(T::of(value as f32).wide()) } else { value };
    let logits: Vec<f64> = logits.iter().map(|x| round(settings.round_logits, f64::from(*x))).collect();
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = logits.iter().map(|x| (x - largest).exp()).sum();
    let scores: Vec<f64> =
        logits.iter().map(|x| round(settings.round_scores, (x - largest).exp() / sum)).collect();
    let mut order: Vec<usize> = (0..e).collect();
    order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]).then(a.cmp(b)));
    let expected: Vec<u16> = order[..k].iter().map(|id| *id as u16).collect();
    let what = format!("{} token {token} of {settings:?}", T::NAME);
    assert_eq!(routed.experts[token * k..][..k], expected, "{what}");
    // Two roundings of scores, sum and quotient, each by half a unit; else a few units of f32.
    let unit =
        if size_of::<T>() == 4 { 1e-6 } else { f64::from(T::of(1.0).wide() - T::of(0.998).wide()).max(1e-3) };
    let unit = if settings.round_scores || settings.round_logits { 4.0 * unit } else { 1e-5 };
    let near = |found: f32, expected: f64, of: f64, name: &str| {
        assert!(
            (f64::from(found) - expected).abs() <= unit * of.max(1e-6),
            "{name} {found}, {expected}: {what}"
        );
    };
    let total: f64 = order[..k].iter().map(|id| scores[*id]).sum::<f64>() + f64::from(settings.sum_offset);
    let divisor = if settings.renormalise { total } else { 1.0 };
    let weights = &routed.weights[token * k..][..k];
    for (weight, id) in weights.iter().zip(&order) {
        near(*weight, scores[*id] / divisor, scores[*id] / divisor, "weight");
    }
    assert!(weights.is_sorted_by(|a, b| a >= b), "{what}");
    let last = scores[order[k - 1]];
    let next = order.get(k).map_or(0.0, |id| scores[*id]);
    near(routed.margins[token], last - next, last, "margin");
    if k < e && logits[order[k]].to_bits() == logits[order[k - 1]].to_bits() {
        assert_eq!(routed.margins[token].to_bits(), 0, "{what}");
    }
    let weighted: f64 = logits.iter().map(|x| (x - largest).exp() * (x - largest)).sum();
    let bits = (sum.ln() - weighted / sum) / std::f64::consts::LN_2;
    assert!((f64::from(routed.entropies[token]) - bits).abs() < 1e-5, "{what}");
    let rounded = routed.logits[token * e..][..e].iter().map(|x| f64::from(*x).to_bits());
    assert!(rounded.eq(logits.iter().map(|x| x.to_bits())), "{what}");
}

fn routes<T: Value>() {
    let Some(gpu) = gpu() else { return };
    let mut random = Random(31);
    for (n, experts, chosen) in SHAPES {
        // No -0: it would come before 0 in the order below.
        let logits: Vec<f32> =
            (0..n * experts).map(|_| (random.normal() * 64.0).round() / 64.0 + 0.0).collect();
        for flags in 0..8 {
            let [round_logits, round_scores, renormalise] = [1, 2, 4].map(|flag| flags & flag != 0);
            let sum_offset = if renormalise && round_scores { 1e-20 } else { 0.0 };
            let settings =
                RouterSettings { experts, chosen, round_logits, round_scores, renormalise, sum_offset };
            let routed = route::<T>(gpu, &logits, settings);
            assert_eq!(routed.first_bad, u32::MAX);
            for (token, logits) in logits.chunks_exact(experts).enumerate() {
                check::<T>(logits, settings, token, &routed);
            }
        }
    }
}

#[test]
fn choices_follow_the_definition_with_ties_to_the_lower_id() {
    routes::<bf16>();
    routes::<f16>();
    routes::<f32>();
}

#[test]
fn the_first_row_with_a_logit_that_is_not_finite_is_told_and_ids_stay_inside() {
    let Some(gpu) = gpu() else { return };
    let settings = RouterSettings {
        experts: 60,
        chosen: 4,
        round_logits: true,
        round_scores: true,
        renormalise: true,
        sum_offset: 0.0,
    };
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut logits = vec![0.5f32; 100 * 60];
        logits[77 * 60 + 3] = bad;
        logits[41 * 60 + 59] = bad;
        let routed = route::<bf16>(gpu, &logits, settings);
        assert_eq!(routed.first_bad, 41);
        assert!(routed.experts.iter().all(|id| *id < 60));
    }
}
