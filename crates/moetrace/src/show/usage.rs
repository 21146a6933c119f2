//! What a run takes of memory and of a GPU's time.

use moetrace_run::{RunEvent, Usage};
use serde_json::{Value, json};

use super::{bytes, thousands};

/// Memory and time in one line; what is not known, or is not there without a GPU, is left out.
pub(crate) fn used(usage: &Usage) -> String {
    let memory = [
        ("device", usage.device_bytes),
        ("page-locked", usage.host_bytes),
        ("resident", usage.resident_bytes),
    ];
    let memory = memory.iter().filter(|(_, n)| *n > 0).map(|(what, n)| format!("{what} {}", bytes(*n)));
    let busy = usage.utilisation().map(|share| format!("GPU at work {:.0} %", 100.0 * share));
    let waiting = usage.waiting().map(|share| format!("{:.1} % of it waiting for copies", 100.0 * share));
    memory.chain(busy).chain(waiting).collect::<Vec<_>>().join(", ")
}

/// The same with names; shares are null without a GPU.
pub(crate) fn used_json(usage: &Usage) -> Value {
    json!({
        "device_bytes": usage.device_bytes,
        "host_bytes": usage.host_bytes,
        "resident_bytes": usage.resident_bytes,
        "elapsed_us": usage.elapsed_us,
        "passes_us": usage.passes_us,
        "waited_us": usage.waited_us,
        "utilisation": usage.utilisation(),
        "waiting": usage.waiting(),
    })
}

/// The warning of a shard that begins again with smaller passes; `None` of another event.
pub(crate) fn halved(event: &RunEvent<'_>) -> Option<String> {
    let RunEvent::Halved { shard, from, to, usage, why, .. } = event else { return None };
    let held = match usage.device_bytes {
        0 => String::new(),
        held => format!(" ({} of it ours)", bytes(held)),
    };
    let (from, to) = (thousands(*from as u64), thousands(*to as u64));
    Some(format!(
        "warning[W-OOM]: {}: GPU memory ran out in passes of {from} tokens{held}: {why}; doing the shard again in passes \
         of {to}",
        shard.name
    ))
}

#[cfg(test)]
mod tests {
    use moetrace_model::{EngineUsage, ModelError};
    use moetrace_run::Shard;

    use super::*;

    #[test]
    fn without_a_gpu_only_the_resident_set_is_told() {
        let usage = Usage { resident_bytes: 1_500_000_000, elapsed_us: 7, ..Usage::default() };
        assert_eq!(used(&usage), "resident 1.50 GB");
        let usage = Usage {
            device_bytes: 5_930_000_000,
            host_bytes: 4_200_000_000,
            passes_us: 9_600_000,
            waited_us: 144_000,
            elapsed_us: 10_000_000,
            ..usage
        };
        let expected = "device 5.93 GB, page-locked 4.20 GB, resident 1.50 GB, GPU at work 96 %, 1.5 % of it waiting for \
                        copies";
        assert_eq!(used(&usage), expected);
    }

    #[test]
    fn a_warning_says_what_was_in_use_and_what_is_tried_now() {
        let shard = Shard { name: "imdb-00003-of-00012".into(), dataset: 0, first: 0, samples: 1, tokens: 1 };
        let event = RunEvent::Halved {
            shard: &shard,
            dataset: "imdb",
            from: 40_960,
            to: 20_480,
            usage: EngineUsage { device_bytes: 22_100_000_000, ..EngineUsage::default() },
            why: &ModelError::OutOfMemory { what: "buffers of a pass" },
        };
        assert_eq!(
            halved(&event).unwrap(),
            "warning[W-OOM]: imdb-00003-of-00012: GPU memory ran out in passes of 40,960 tokens (22.10 GB of it ours): \
             buffers of a pass: out of memory; doing the shard again in passes of 20,480"
        );
        assert_eq!(halved(&RunEvent::Loading), None);
    }
}
