//! Every parity case on the GPU: in f32 close to the reference value by value, in bf16 and f16 as far as rounding
//! lets it.

use std::collections::{HashMap, HashSet};

use moetrace_model::{CudaEngine, Precision, ProbePoint};
use moetrace_routing::LayerIndex;

use super::support::{engine, largest_difference, relative_error, settings};
use crate::cases::{Array, Case, committed, further_cases, margin, pick};
use crate::recorder::{Layer, Recorder, Seen, batch_at};
use crate::support::{alone, asked};

/// f32: largest absolute difference, and margins from which on sets must be equal. Positions up to thousands make
/// angles whose f32 rounding alone moves results, so that `jump.` has more room, as on the CPU.
const EXACT: f32 = 1e-3;
const EXACT_JUMP: f32 = 2e-3;
const EXACT_MARGIN: f32 = 2e-4;
/// 16 bits: relative error of hidden states, the margin from which on every set is equal, and that from which on a
/// share of them is.
const ROUNDED: f64 = 2e-2;
const SURE_MARGIN: f32 = 0.05;
const LIKELY_MARGIN: f32 = 0.01;
const LIKELY_SHARE: f64 = 0.99;

/// One run of a case: main, `jump.` or `long.`.
struct Run<'a> {
    case: &'a Case,
    prefix: &'static str,
    rows: Vec<usize>,
    layers: Vec<Layer>,
    seen: HashMap<ProbePoint, Vec<f32>>,
}

impl<'a> Run<'a> {
    fn new(case: &'a Case, engine: &mut CudaEngine, prefix: &'static str) -> Option<Self> {
        let masked = case.inputs(prefix)?;
        let (mut recorder, mut seen) = (Recorder::everything(), Seen::default());
        let batch = batch_at(&masked.samples, &masked.positions);
        engine.run_with_probe(&batch, &mut recorder, &mut seen).unwrap();
        Some(Self { case, prefix, rows: masked.rows, layers: recorder.layers, seen: seen.0 })
    }

    fn expected(&self, name: &str) -> Option<&Array> {
        self.case.expected.get(&format!("{}{name}", self.prefix))
    }

    /// Names, found values and expected ones of every tensor that the case has.
    fn tensors(&self, layers: usize) -> Vec<(String, &[f32], Vec<f32>)> {
        let mut points = vec![("hidden.0".to_owned(), ProbePoint::Embedding)];
        for layer in 0..layers {
            let index = LayerIndex(layer as u16);
            let last = layer + 1 == layers;
            let after = if last { format!("layer_out.{layer}") } else { format!("hidden.{}", layer + 1) };
            points.push((after, ProbePoint::LayerOutput(index)));
            points.push((format!("attn_out.{layer}"), ProbePoint::AttentionOutput(index)));
            points.push((format!("mlp_out.{layer}"), ProbePoint::MlpOutput(index)));
            points.push((format!("router.{layer}.logits"), ProbePoint::RouterLogits(index)));
        }
        points.push((format!("hidden.{layers}"), ProbePoint::FinalNorm));
        points.push(("logits".to_owned(), ProbePoint::Logits));
        let found = points.into_iter().filter_map(|(name, point)| {
            let expected = self.expected(&name)?;
            let width = *expected.shape.last()?;
            let values = self.seen.get(&point)?.as_slice();
            Some((name, values, pick(&expected.floats, &self.rows, width)))
        });
        found.collect()
    }

    /// The last rows' logits of a long run, as found and as expected.
    fn tail(&self) -> Option<(&[f32], &[f32])> {
        let expected = &self.expected("logits_tail")?.floats;
        let all = &self.seen[&ProbePoint::Logits];
        Some((&all[all.len() - expected.len()..], expected))
    }

    /// Rows of the batch that chose another set than the reference in some layer: in 16 bits a near tie may fall either
    /// way, and from there on the row is another computation.
    fn strayed(&self) -> HashSet<usize> {
        let n = self.rows.len();
        let choices = self.choices();
        choices.iter().enumerate().filter(|(_, (_, same))| !same).map(|(place, _)| place % n).collect()
    }

    /// For every row of every MoE layer, the reference's margin and whether the same set was chosen.
    fn choices(&self) -> Vec<(f32, bool)> {
        let mut choices = Vec::new();
        for layer in &self.layers {
            let name = |part: &str| format!("router.{}.{part}", layer.number);
            let ids = self.expected(&name("topk_ids")).unwrap();
            let k = ids.shape[1];
            for (packed, row) in self.rows.iter().enumerate() {
                let margin = match self.expected(&name("probs")) {
                    Some(probs) => margin(&probs.floats[row * probs.shape[1]..][..probs.shape[1]], k),
                    None => layer.margins[packed],
                };
                let expected: HashSet<u32> = ids.ints[row * k..(row + 1) * k].iter().copied().collect();
                let found = layer.experts[packed * k..(packed + 1) * k].iter().map(|id| u32::from(*id));
                choices.push((margin, found.collect::<HashSet<u32>>() == expected));
            }
        }
        choices
    }
}

fn runs(case: &Case, precision: Precision, mut check: impl FnMut(&Run<'_>, usize)) {
    let mut engine = engine(&case.dir, settings(precision, 2048));
    let layers = engine.config().layers();
    let mut count = 0;
    for prefix in ["", "jump.", "long."] {
        if let Some(run) = Run::new(case, &mut engine, prefix) {
            check(&run, layers);
            count += 1;
        }
    }
    assert!(count > 1, "{}: {count} runs", case.name);
}

fn exact(case: &Case) {
    runs(case, Precision::F32, |run, layers| {
        let limit = if run.prefix == "jump." { EXACT_JUMP } else { EXACT };
        let tensors = run.tensors(layers);
        let tail = run.tail();
        assert!(!tensors.is_empty() || tail.is_some(), "{} {}", case.name, run.prefix);
        let mut worst = 0f32;
        if let Some((found, expected)) = tail {
            worst = largest_difference(found, expected);
            assert!(worst <= limit, "{} {}logits_tail deviates by {worst}", case.name, run.prefix);
        }
        for (name, found, expected) in tensors {
            let difference = largest_difference(found, &expected);
            assert!(difference <= limit, "{} {}{name} deviates by {difference}", case.name, run.prefix);
            worst = worst.max(difference);
        }
        let choices = run.choices();
        let clear: Vec<_> = choices.iter().filter(|(margin, _)| *margin > EXACT_MARGIN).collect();
        assert!(clear.len() * 5 >= choices.len() * 4, "{}: {} clear margins", case.name, clear.len());
        let wrong = clear.iter().filter(|(_, same)| !same).count();
        assert_eq!(wrong, 0, "{} {}: sets differ", case.name, run.prefix);
        println!("{} {}f32: worst {worst:.1e}, {} sets equal", case.name, run.prefix, clear.len());
    });
}

fn rounded(case: &Case, precision: Precision) {
    runs(case, precision, |run, layers| {
        let mut worst = 0f64;
        let (strayed, n) = (run.strayed(), run.rows.len());
        // bf16 alone ties up to 6 % of the rows of a layer at the boundary; the cases have up to five layers.
        assert!(
            strayed.len() * 4 <= n,
            "{} {}: {} of {n} rows strayed",
            case.name,
            run.prefix,
            strayed.len()
        );
        for (name, found, expected) in run.tensors(layers) {
            // Hidden states are the residual stream and its norm; a block's own output is small beside it, and so its
            // relative error larger.
            if name.starts_with("hidden.") || name.starts_with("layer_out.") {
                let width = expected.len() / n;
                let staying = |values: &[f32]| -> Vec<f32> {
                    let rows =
                        values.chunks_exact(width).enumerate().filter(|(row, _)| !strayed.contains(row));
                    rows.flat_map(|(_, row)| row.iter().copied()).collect()
                };
                let error = relative_error(&staying(found), &staying(&expected));
                assert!(error < ROUNDED, "{} {}{name} in {precision}: off by {error}", case.name, run.prefix);
                worst = worst.max(error);
            }
        }
        // A row's choices up to the first that differs: what follows it is another computation.
        let mut gone = HashSet::new();
        let mut choices = run.choices();
        let mut place = 0;
        choices.retain(|(_, same)| {
            let row = place % n;
            place += 1;
            let counts = !gone.contains(&row);
            if !same {
                gone.insert(row);
            }
            counts
        });
        let share = |least: f32| {
            let wide: Vec<_> = choices.iter().filter(|(margin, _)| *margin > least).collect();
            (wide.iter().filter(|(_, same)| *same).count(), wide.len())
        };
        let (sure, likely) = (share(SURE_MARGIN), share(LIKELY_MARGIN));
        let strayed = strayed.len();
        println!(
            "{} {}{precision}: worst {worst:.1e}, {strayed} of {n} strayed, {sure:?}, {likely:?}",
            case.name, run.prefix
        );
        assert_eq!(sure.0, sure.1, "{} {} in {precision}: sets differ", case.name, run.prefix);
        let enough = likely.0 as f64 >= LIKELY_SHARE * likely.1 as f64;
        assert!(enough, "{} {} in {precision}: {likely:?} sets equal", case.name, run.prefix);
    });
}

fn check(case: &Case) {
    exact(case);
    rounded(case, Precision::Bf16);
    rounded(case, Precision::F16);
}

#[test]
fn committed_cases_match_the_reference() {
    if !asked() {
        return;
    }
    let _alone = alone();
    let names = [
        "deepseek_small",
        "deepseek_norm",
        "mixtral_small",
        "olmoe_small",
        "qwen2_moe_small",
        "qwen3_moe_small",
    ];
    for name in names {
        check(&committed(name));
    }
}

#[test]
fn every_further_case_matches_too() {
    if !asked() {
        return;
    }
    let _alone = alone();
    let cases = further_cases();
    if cases.is_empty() {
        println!("MOETRACE_PARITY_EXTRA names no further cases: only committed ones were compared");
    }
    for case in cases {
        check(&case);
    }
}
