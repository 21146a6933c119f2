//! Where a run's weights live, what that takes, and how fast it should be, with the arithmetic.

use std::fmt::Write as _;

use moetrace_model::{GpuSpeed, Place, SpeedEstimate};
use serde_json::{Value, json};

use super::{bytes, counted, thousands, word};
use crate::device::Fit;
use crate::on_gpu::OnGpu;

/// The lines of a plan that are about the GPU; `tokens` are those to be traced, if they are known.
pub(super) fn gpu_lines(gpu: &OnGpu, tokens: Option<u64>) -> String {
    let (facts, fit) = (&gpu.facts, &gpu.fit);
    let preset = fit.preset.map_or("none", |preset| preset.name);
    let mut out = if gpu.is_here() {
        let (free, total) = (bytes(facts.free), bytes(facts.total));
        format!(
            "gpu       {}, {}, {free} of {total} free, preset {preset}\n",
            facts.ordinal,
            word(&facts.name)
        )
    } else {
        format!("gpu       {preset}, as if one were here with all of its {} free\n", bytes(facts.total))
    };
    let m = fit.memory;
    let streamed =
        if m.slots > 0 { format!("{} for weights that take turns, ", bytes(m.slots)) } else { String::new() };
    let _ = writeln!(
        out,
        "memory    {} of weights, {streamed}{} of buffers, {} for CUDA: {} of at most {} ({})",
        bytes(m.weights),
        bytes(m.buffers),
        bytes(m.context_reserve),
        bytes(m.total()),
        bytes(fit.limits.device),
        fit.limits.device_source()
    );
    let _ = writeln!(out, "layers    {}", layers(fit));
    let most = if fit.limits.host == u64::MAX {
        "no bound".to_owned()
    } else {
        format!("at most {}", bytes(fit.limits.host))
    };
    let disk =
        if m.disk > 0 { format!("; {} read from disk in every pass", bytes(m.disk)) } else { String::new() };
    let _ = writeln!(
        out,
        "host      {} page-locked of {most} ({}){disk}",
        bytes(m.host),
        fit.limits.host_source()
    );
    let _ = writeln!(out, "passes    {}", passes(fit));
    if let Some(hiding) = hiding(fit) {
        let _ = writeln!(out, "hiding    {hiding}");
    }
    let _ = writeln!(out, "speed     {}", speed(&fit.speed, fit));
    if let Some(tokens) = tokens {
        let seconds = tokens as f64 / fit.speed.tokens_per_second;
        let _ = writeln!(
            out,
            "time      about {} for {} tokens, once loaded",
            duration(seconds),
            thousands(tokens)
        );
    }
    out
}

/// Which layers live where.
fn layers(fit: &Fit) -> String {
    let places = [(Place::Device, "on the GPU"), (Place::Host, "in host memory"), (Place::Disk, "on disk")];
    let mut parts: Vec<String> = Vec::new();
    for (place, name) in places {
        let layers = fit.layers(place);
        if layers.len() == fit.placement.layers.len() {
            parts.push(format!("all {} {name}", layers.len()));
        } else if !layers.is_empty() {
            parts.push(format!("{} {name} ({})", layers.len(), ranges(&layers)));
        }
    }
    let embedding = if fit.placement.embedding == Place::Device { "on the GPU" } else { "in host memory" };
    let groups = match fit.placement.expert_groups {
        0 | 1 => String::new(),
        groups => format!("; experts come in {groups} groups, since whole layers do not fit"),
    };
    format!("{}; embedding {embedding}{groups}", parts.join(", "))
}

/// `0-3, 5, 7-8` of ascending numbers.
fn ranges(numbers: &[usize]) -> String {
    let mut parts: Vec<(usize, usize)> = Vec::new();
    for number in numbers {
        match parts.last_mut() {
            Some((_, last)) if *last + 1 == *number => *last = *number,
            _ => parts.push((*number, *number)),
        }
    }
    let words =
        parts.iter().map(|(from, to)| if from == to { from.to_string() } else { format!("{from}-{to}") });
    words.collect::<Vec<_>>().join(", ")
}

fn passes(fit: &Fit) -> String {
    let p = &fit.placement;
    let pass = counted(fit.tokens_per_pass as u64, "token");
    if p.tokens_per_chunk >= p.tokens_per_pass {
        return format!("{pass}, in one piece");
    }
    let hidden = if p.parks_hidden { "wait in host memory" } else { "stay on the GPU" };
    format!("{pass}, in chunks of {}; hidden states {hidden}", thousands(p.tokens_per_chunk as u64))
}

/// From what size of pass on copies cost nothing; none where nothing is copied.
fn hiding(fit: &Fit) -> Option<String> {
    let speed = &fit.speed;
    if speed.copied == 0 {
        return None;
    }
    let (layer, seconds) = speed.largest_copy;
    let why = format!(
        "a layer of {} is copied in {} ms, in which {} tokens are multiplied with it",
        bytes(layer),
        rounded(seconds * 1e3),
        thousands((seconds / speed.layer_seconds) as u64)
    );
    Some(match speed.hidden_from {
        Some(tokens) => {
            format!("copies hide behind arithmetic from {} tokens a pass on: {why}", thousands(tokens as u64))
        }
        None => format!("no pass is long enough to hide all copies: {why}"),
    })
}

fn speed(speed: &SpeedEstimate, fit: &Fit) -> String {
    let GpuSpeed { matrix, bus, measured, .. } = speed.gpu;
    let known = if measured {
        "as measured on such a GPU"
    } else {
        "an estimate: no pass was measured on such a GPU"
    };
    let (rate, share) = (speed.rate / 1e12, 100.0 * speed.rate / matrix as f64);
    let mut out = format!(
        "about {} tokens/s, {known}; {:.2} GFLOP a token at {rate:.0} TFLOP/s ({share:.0} % of {:.0})",
        thousands(speed.tokens_per_second as u64),
        speed.operations / 1e9,
        matrix as f64 / 1e12
    );
    if speed.restore_seconds > 0.0 {
        let _ = write!(out, ", {} ms a pass to restore weights", rounded(speed.restore_seconds * 1e3));
    }
    if speed.copied > 0 {
        let waiting = 100.0 * speed.waiting();
        let (copied, bus) = (bytes(speed.copied), bus as f64 / 1e9);
        let _ =
            write!(out, ", {copied} a pass to copy at {bus:.0} GB/s, waited for {waiting:.0} % of the time");
    }
    let _ = write!(out, "; a pass takes {} s", rounded(speed.pass_seconds));
    if fit.placement.parks_hidden {
        out.push_str("; hidden states cross the bus too");
    }
    out
}

/// Three digits.
fn rounded(number: f64) -> String {
    match number {
        n if n >= 100.0 => thousands(n.round() as u64),
        n if n >= 10.0 => format!("{n:.1}"),
        n => format!("{n:.2}"),
    }
}

/// `48 s`, `3 min 20 s`, `2 h 5 min`.
fn duration(seconds: f64) -> String {
    let seconds = seconds.ceil() as u64;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", thousands(seconds / 3600), seconds % 3600 / 60),
    }
}

/// The same for machines; null on the processor.
pub(crate) fn gpu_json(gpu: Option<&OnGpu>, tokens: Option<u64>) -> Value {
    let Some(on_gpu) = gpu else { return Value::Null };
    let (facts, fit) = (&on_gpu.facts, &on_gpu.fit);
    let (p, speed) = (&fit.placement, &fit.speed);
    let place = |place: &Place| match place {
        Place::Device => "gpu",
        Place::Host => "host",
        Place::Disk => "disk",
    };
    let layers: Vec<&str> = p.layers.iter().map(place).collect();
    json!({
        "ordinal": facts.ordinal,
        "name": facts.name,
        "present": on_gpu.is_here(),
        "free_bytes": facts.free,
        "total_bytes": facts.total,
        "preset": fit.preset.map(|preset| preset.name),
        "limit_bytes": fit.limits.device,
        "host_limit_bytes": Some(fit.limits.host).filter(|host| *host < u64::MAX),
        "weight_bytes": fit.memory.weights,
        "slot_bytes": fit.memory.slots,
        "buffer_bytes": fit.memory.buffers,
        "context_bytes": fit.memory.context_reserve,
        "device_bytes": fit.memory.total(),
        "host_bytes": fit.memory.host,
        "disk_bytes": fit.memory.disk,
        "layers": layers,
        "embedding": place(&p.embedding),
        "expert_groups": p.expert_groups,
        "tokens_per_pass": fit.tokens_per_pass,
        "tokens_per_chunk": p.tokens_per_chunk,
        "parks_hidden": p.parks_hidden,
        "speed": {
            "tokens_per_second": speed.tokens_per_second,
            "seconds": tokens.map(|tokens| tokens as f64 / speed.tokens_per_second),
            "measured": speed.gpu.measured,
            "pass_seconds": speed.pass_seconds,
            "compute_seconds": speed.compute_seconds,
            "restore_seconds": speed.restore_seconds,
            "waiting_share": speed.waiting(),
            "operations_per_token": speed.operations,
            "operations_per_second": speed.rate,
            "bus_bytes_per_second": speed.gpu.bus,
            "copied_bytes_per_pass": speed.copied,
            "largest_copy_bytes": speed.largest_copy.0,
            "largest_copy_seconds": speed.largest_copy.1,
            "hidden_from_tokens": speed.hidden_from,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_layers_are_ranges() {
        assert_eq!(ranges(&[0, 1, 2, 5, 7, 8]), "0-2, 5, 7-8");
        assert_eq!((ranges(&[3]), ranges(&[])), ("3".into(), String::new()));
    }

    #[test]
    fn seconds_are_as_people_say_them() {
        let said = [0.2, 59.0, 200.0, 7_500.0].map(duration);
        assert_eq!(said, ["1 s", "59 s", "3 min 20 s", "2 h 5 min"]);
        assert_eq!([1234.5, 99.94, 0.123].map(rounded), ["1,235", "99.9", "0.12"]);
    }
}
