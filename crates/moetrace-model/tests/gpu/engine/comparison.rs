//! Both engines over the same texts.

use std::collections::HashSet;
use std::path::Path;

use moetrace_model::{CpuEngine, CpuSettings, CudaSettings, ProbePoint};

use super::support::{engine, largest_difference, relative_error};
use crate::recorder::{Layer, Recorder, Seen, batch};

/// What two engines gave for the same texts.
pub(super) struct Comparison {
    /// Of the last hidden state at rows that chose alike in every layer.
    relative: f64,
    largest: f32,
    /// Of all other numbers at such rows: weights, margins, entropies, gates, logits, hidden states, losses.
    planes: f32,
    /// Rows that chose another set in some layer, and all rows.
    strayed: (usize, usize),
    /// Margins on the CPU of all choices, and whether the sets are equal.
    choices: Vec<(f32, bool)>,
}

impl Comparison {
    /// Equal sets among those with a margin above `least`, and how many there are.
    fn equal_above(&self, least: f32) -> (usize, usize) {
        let wide: Vec<_> = self.choices.iter().filter(|(margin, _)| *margin > least).collect();
        (wide.iter().filter(|(_, same)| *same).count(), wide.len())
    }

    /// In f32 both engines compute the same but for the order of sums.
    pub(super) fn assert_exact(&self, what: &str) {
        let (same, all) = self.equal_above(2e-4);
        println!("{what}: {:.1e}, largest {:.1e}, planes {:.1e}", self.relative, self.largest, self.planes);
        assert!(all > 0 && same == all, "{what}: {same} of {all} sets equal");
        let close = self.relative < 1e-4 && self.largest < 1e-3 && self.planes < 1e-3;
        assert!(close, "{what}: {:e}, {:e}, {:e}", self.relative, self.largest, self.planes);
    }

    /// In 16 bits sums in another order round to neighbours, and near ties fall either way. f16 has three bits more
    /// than bf16.
    pub(super) fn assert_rounded(&self, what: &str, limit: f64) {
        let (sure, likely) = (self.equal_above(0.05), self.equal_above(0.01));
        println!("{what}: {:.1e}, {:?} strayed, {sure:?}, {likely:?}", self.relative, self.strayed);
        assert!(self.relative < limit, "{what}: off by {}", self.relative);
        assert!(self.strayed.0 * 4 <= self.strayed.1, "{what}: {:?} strayed", self.strayed);
        assert!(sure.0 == sure.1, "{what}: {sure:?} sets equal above 0.05");
        assert!(likely.1 > 0 && likely.0 * 100 >= likely.1 * 99, "{what}: {likely:?} sets equal above 0.01");
    }
}

/// Runs both with every plane, and hidden states of a few rows.
pub(super) fn compare(dir: &Path, cpu: CpuSettings, gpu: CudaSettings, samples: &[Vec<u32>]) -> Comparison {
    let all = batch(samples);
    let last = all.len() as u32 - 1;
    let mut rows: Vec<u32> = [0, 1, 70, 500, last].into_iter().filter(|row| *row <= last).collect();
    rows.dedup();
    let batch = all.with_hidden_rows(rows).unwrap();
    let (mut expected, mut expected_seen) = (Recorder::everything(), Seen::default());
    let mut reference = CpuEngine::open(dir, &cpu).unwrap();
    reference.run_with_probe(&batch, &mut expected, &mut expected_seen).unwrap();
    let (mut found, mut found_seen) = (Recorder::everything(), Seen::default());
    engine(dir, gpu).run_with_probe(&batch, &mut found, &mut found_seen).unwrap();
    assert_eq!((found.began, found.ended, found.layers.len()), (1, 1, expected.layers.len()));
    let n = batch.len();
    let (mut choices, mut strayed) = (Vec::new(), HashSet::new());
    for (found, expected) in found.layers.iter().zip(&expected.layers) {
        assert_eq!(found.number, expected.number);
        let k = expected.experts.len() / n;
        for row in 0..n {
            let set = |ids: &[u16]| ids[row * k..(row + 1) * k].iter().copied().collect::<HashSet<_>>();
            let equal = set(&found.experts) == set(&expected.experts);
            choices.push((expected.margins[row], equal));
            if !equal {
                strayed.insert(row);
            }
        }
    }
    let layers = found.layers.iter().zip(&expected.layers);
    let planes =
        layers.map(|(found, expected)| planes_apart(found, expected, n, batch.hidden_rows(), &strayed));
    let planes = planes.fold(0f32, f32::max);
    let hidden = |seen: &Seen| -> Vec<f32> {
        let values = &seen.0[&ProbePoint::FinalNorm];
        let rows = values.chunks_exact(values.len() / n).enumerate();
        rows.filter(|(row, _)| !strayed.contains(row)).flat_map(|(_, row)| row.iter().copied()).collect()
    };
    let (a, b) = (hidden(&found_seen), hidden(&expected_seen));
    let (relative, largest) = (relative_error(&a, &b), largest_difference(&a, &b));
    Comparison { relative, largest, planes, strayed: (strayed.len(), n), choices }
}

/// The largest difference of a layer's numbers at rows that did not stray.
fn planes_apart(
    found: &Layer,
    expected: &Layer,
    n: usize,
    hidden_rows: &[u32],
    strayed: &HashSet<usize>,
) -> f32 {
    let optional = |plane: &Option<Vec<f32>>| plane.clone().unwrap_or_default();
    let pairs = [
        (found.weights.clone(), expected.weights.clone()),
        (found.margins.clone(), expected.margins.clone()),
        (found.gate_entropy.clone(), expected.gate_entropy.clone()),
        (optional(&found.logits), optional(&expected.logits)),
        (optional(&found.shared_gate), optional(&expected.shared_gate)),
        (optional(&found.nll), optional(&expected.nll)),
    ];
    let mut worst = 0f32;
    for (found, expected) in pairs {
        assert_eq!(found.len(), expected.len(), "a plane is missing");
        let width = expected.len() / n;
        for (place, (found, expected)) in found.iter().zip(&expected).enumerate() {
            assert_eq!(found.is_nan(), expected.is_nan(), "where losses begin");
            if !expected.is_nan() && !strayed.contains(&(place / width)) {
                worst = worst.max((found - expected).abs());
            }
        }
    }
    let (found, expected) = (optional(&found.hidden), optional(&expected.hidden));
    assert!(!expected.is_empty() && found.len() == expected.len(), "hidden states are missing");
    let width = expected.len() / hidden_rows.len();
    for (place, (found, expected)) in found.iter().zip(&expected).enumerate() {
        if !strayed.contains(&(hidden_rows[place / width] as usize)) {
            worst = worst.max((found - expected).abs());
        }
    }
    worst
}
