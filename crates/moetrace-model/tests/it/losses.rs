//! Token losses against their definition.

use moetrace_model::synthetic::{SyntheticSettings, tiny_config, write_checkpoint};
use moetrace_model::{CpuEngine, CpuSettings, Engine, Family, ProbePoint};
use moetrace_routing::Planes;

use crate::recorder::{Recorder, Seen, batch, tokens};

#[test]
fn losses_are_the_negative_log_probabilities_of_the_tokens_that_came() {
    for family in Family::ALL {
        let dir = tempfile::tempdir().unwrap();
        write_checkpoint(dir.path(), &tiny_config(family), &SyntheticSettings::default()).unwrap();
        let mut engine = CpuEngine::open(dir.path(), &CpuSettings::default()).unwrap();
        let samples = [tokens(1, 140, 96), tokens(2, 1, 96), tokens(3, 25, 96)];
        let batch = batch(&samples);
        let (mut recorder, mut seen) = (Recorder::everything(), Seen::default());
        engine.run_with_probe(&batch, &mut recorder, &mut seen).unwrap();
        let losses = recorder.layers.last().unwrap().nll.clone().unwrap();
        let logits = &seen.0[&ProbePoint::Logits];
        for span in batch.spans() {
            assert!(losses[span.start].is_nan());
            for row in span.rows().skip(1) {
                let before: Vec<f64> =
                    logits[(row - 1) * 96..row * 96].iter().map(|l| f64::from(*l)).collect();
                let sum: f64 = before.iter().map(|l| l.exp()).sum();
                let expected = sum.ln() - before[batch.token_ids()[row].index()];
                assert!((f64::from(losses[row]) - expected).abs() < 1e-5, "{family} row {row}");
            }
        }
        let mut alone = Recorder::wanting(Planes { nll: true, ..Planes::default() });
        engine.run(&batch, &mut alone).unwrap();
        let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(alone.layers.last().unwrap().nll.as_ref().unwrap()), bits(&losses));
    }
}
