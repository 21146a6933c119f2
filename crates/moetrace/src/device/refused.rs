//! What a run would take that does not fit, and what to type instead.

use moetrace_model::{CudaMemory, Lack, MOST_PASS, Shortfall};

use super::fit::{Asked, Limits};
use super::found::GpuFacts;
use crate::failure::{Failure, code};
use crate::show::{bytes, thousands};

/// Why nothing fits, in the words of the flags.
pub(super) fn refused(shortfall: &Shortfall, gpu: &GpuFacts, asked: &Asked<'_>, limits: &Limits) -> Failure {
    let (what, help) = match shortfall.lacks {
        Lack::Device => device(shortfall, gpu, asked, limits),
        Lack::Host => host(shortfall, asked, limits),
        Lack::Pass => {
            let (tokens, most) = (asked.tokens.unwrap_or(0), shortfall.largest_pass.unwrap_or(0));
            let what = format!(
                "passes of {} tokens do not fit into {} of GPU {} ({}) and {} of host memory ({})",
                thousands(tokens as u64),
                bytes(limits.device),
                gpu.ordinal,
                limits.device_source(),
                bytes(limits.host),
                limits.host_source(),
            );
            (what, format!("--tokens-per-pass {most} fits"))
        }
    };
    Failure::new(code::CONFIG, "E-MEMORY", what, help)
}

fn device(shortfall: &Shortfall, gpu: &GpuFacts, asked: &Asked<'_>, limits: &Limits) -> (String, String) {
    let CudaMemory { weights, slots, buffers, context_reserve, .. } = shortfall.least;
    let what = format!(
        "passes of one text take {} on GPU {} at the least ({} of weights, {} for those that are streamed, {} of buffers, {} \
         for CUDA), expected at most {} ({})",
        bytes(shortfall.least_device),
        gpu.ordinal,
        bytes(weights),
        bytes(slots),
        bytes(buffers),
        bytes(context_reserve),
        bytes(limits.device),
        limits.device_source(),
    );
    let mut ways = Vec::new();
    if shortfall.least_device <= gpu.free {
        ways.push(format!("--max-memory gpu={} is the least that works", typed(shortfall.least_device)));
    }
    if asked.holds_layers {
        ways.push("leave layers free to wait on the host: --device-map auto".to_owned());
    }
    if asked.max_length > 1 {
        ways.push("a smaller --max-length takes less".to_owned());
    }
    ways.push("--precision nf4 holds weights in 4 bits, --device cpu needs no GPU".to_owned());
    (what, ways.join("; "))
}

fn host(shortfall: &Shortfall, asked: &Asked<'_>, limits: &Limits) -> (String, String) {
    let what = format!(
        "weights and routing that wait on the host take {}, expected at most {} ({})",
        bytes(shortfall.least_host),
        bytes(limits.host),
        limits.host_source(),
    );
    let mut ways = vec![format!("--max-memory cpu={} is the least that works", typed(shortfall.least_host))];
    if !asked.reads_disk {
        ways.push(
            "weights that are quantised on load cannot wait on disk: --cache-quantized, or 'moetrace quantize MODEL --out DIR' \
             once"
                .to_owned(),
        );
    }
    ways.push("more memory on the GPU leaves less to the host".to_owned());
    (what, ways.join("; "))
}

/// Bytes as `--max-memory` takes them, rounded up to whole megabytes.
fn typed(bytes: u64) -> String {
    format!("{}MB", bytes.div_ceil(1_000_000))
}

/// A limit for another GPU, or layers that are to go to one.
pub(super) fn other_gpu(flag: &str, named: usize, gpu: usize) -> Failure {
    let what = format!("{flag} is for GPU {named}, the run is on GPU {gpu}");
    let help = format!("--device cuda:{named} takes that GPU; {flag} without a number is for any");
    Failure::new(code::USAGE, "E-MEMORY", what, help)
}

/// A layer that is to be read from files which do not have it as it is computed with.
pub(super) fn not_on_disk(layer: usize) -> Failure {
    let what = format!(
        "--device-map puts layer {layer} on disk, expected the GPU or the host: weights that are quantised on load are in no file"
    );
    let help = "--cache-quantized, or 'moetrace quantize MODEL --out DIR' once, puts them into one";
    Failure::new(code::CONFIG, "E-MEMORY", what, help)
}

pub(super) fn beyond_the_largest(tokens: usize) -> Failure {
    let (found, most) = (thousands(tokens as u64), thousands(MOST_PASS as u64));
    let what = format!("a pass of {found} tokens, expected at most {most} on a GPU");
    Failure::new(code::USAGE, "E-SETTING", what, "lower --tokens-per-pass or --batch-size")
}
