//! Why two runs are not compared.

use moetrace_metrics::MetricsError;
use moetrace_run::RunError;

use super::{Failure, code};

/// Whether two runs were refused to be compared.
pub(super) fn is_refusal(error: &RunError) -> bool {
    matches!(
        error,
        RunError::OtherRouting { .. }
            | RunError::OtherTokens { .. }
            | RunError::NothingInCommon { .. }
            | RunError::Metrics(MetricsError::NotRecorded { .. })
    )
}

/// Two runs that have no tokens, or not the same ones, or routers of different shape.
pub(super) fn refused(error: &RunError, what: String) -> Failure {
    match error {
        RunError::NothingInCommon { .. } => Failure::new(
            code::BAD_INPUT,
            "E-EMPTY",
            what,
            "'moetrace status RUN' shows each shard; the same collect again continues a run",
        ),
        RunError::Metrics(_) => Failure::new(
            code::CONFIG,
            "E-COMPARE",
            what,
            "compare runs that moetrace recorded; imported ones lack what their tool did not record",
        ),
        RunError::OtherRouting { .. } => Failure::new(
            code::CONFIG,
            "E-COMPARE",
            what,
            "compare runs of models with the same layers and experts",
        ),
        _ => Failure::new(
            code::CONFIG,
            "E-COMPARE",
            what,
            "collect both with the same --dataset, --seed, --max-length and tokenizer; --traces may differ",
        ),
    }
}
