//! The GPU, engines on it, and differences.

use std::path::Path;

use moetrace_model::{Checkpoint, CheckpointSettings, CudaEngine, CudaSettings, Gpu, Precision};
use moetrace_routing::Planes;

/// The GPU, opened anew for an engine of its own.
pub(crate) fn open() -> Gpu {
    let crate::support::Gpu { device, compiler, cublaslt } = crate::support::open();
    Gpu { device, compiler, cublaslt }
}

/// An engine on the GPU in passes of up to `tokens`, with the language-model head.
pub(crate) fn engine(dir: &Path, settings: CudaSettings) -> CudaEngine {
    let checkpoint = Checkpoint::open(dir, &CheckpointSettings::default()).unwrap();
    CudaEngine::load(&checkpoint, &settings, open()).unwrap()
}

/// The settings of a precision.
pub(crate) fn settings(precision: Precision, tokens_per_pass: usize) -> CudaSettings {
    let planes = Planes { logits: true, shared_gate: true, hidden: true, nll: true };
    CudaSettings { precision, tokens_per_pass, planes, ..CudaSettings::default() }
}

/// ‖found - expected‖ / ‖expected‖; infinite where something is not a number.
pub(crate) fn relative_error(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let (mut off, mut all) = (0f64, 0f64);
    for (found, expected) in found.iter().zip(expected) {
        off += (f64::from(*found) - f64::from(*expected)).powi(2);
        all += f64::from(*expected).powi(2);
    }
    let error = (off / all.max(f64::MIN_POSITIVE)).sqrt();
    if error.is_nan() { f64::INFINITY } else { error }
}

/// The largest absolute difference; infinite where something is not a number.
pub(crate) fn largest_difference(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let differences = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
    differences.fold(0f32, |worst, d| if d.is_nan() { f32::INFINITY } else { worst.max(d) })
}
