//! bf16 on the CPU: bf16 values between f32 products.

use moetrace_model::synthetic::{SyntheticSettings, tiny_config, write_checkpoint};
use moetrace_model::{CpuEngine, CpuSettings, ElementType, Family, Precision, ProbePoint};

use crate::recorder::{Recorder, Seen, batch, tokens};

fn probe(dir: &std::path::Path, precision: Precision) -> Seen {
    let settings = CpuSettings { precision, threads: 2, ..CpuSettings::default() };
    let mut engine = CpuEngine::open(dir, &settings).unwrap();
    let mut seen = Seen::default();
    engine.run_with_probe(&batch(&[tokens(5, 60, 96)]), &mut Recorder::default(), &mut seen).unwrap();
    seen
}

#[test]
fn bf16_passes_hold_bf16_values_and_stay_near_f32() {
    for family in Family::ALL {
        let dir = tempfile::tempdir().unwrap();
        let settings = SyntheticSettings { element: ElementType::Bf16, ..SyntheticSettings::default() };
        write_checkpoint(dir.path(), &tiny_config(family), &settings).unwrap();
        let (exact, rounded) = (probe(dir.path(), Precision::F32), probe(dir.path(), Precision::Bf16));
        assert_eq!(exact.0.len(), rounded.0.len());
        for (point, values) in &rounded.0 {
            // Scores of all families but DeepSeek are f32, and the head's logits are only a sum.
            let f32_point = matches!(point, ProbePoint::RouterScores(_) | ProbePoint::Logits);
            assert!(
                f32_point || values.iter().all(|v| v.to_bits().trailing_zeros() >= 16),
                "{family} {point:?}"
            );
        }
        // 8 bits of mantissa, a dozen roundings a layer, 3 layers: relative errors of a few percent where no
        // token changes its experts; one that does moves by more, so compare the middle.
        let point = ProbePoint::AttentionOutput(moetrace_routing::LayerIndex(0));
        let mut errors: Vec<f32> =
            exact.0[&point].iter().zip(&rounded.0[&point]).map(|(a, b)| (a - b).abs()).collect();
        errors.sort_by(f32::total_cmp);
        assert!(errors[errors.len() / 2] < 0.01, "{family}: {}", errors[errors.len() / 2]);
        assert!(errors[errors.len() - 1] > 0.0, "{family}: nothing was rounded");
    }
}
