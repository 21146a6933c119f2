//! Lines for `cargo xtask bench`, and numbers as they stand in them.

/// Prints a result: what kind of line it is, and its fields.
pub(crate) fn line(kind: &str, fields: &[&str]) {
    println!("moetrace-bench\t{kind}\t{}", fields.join("\t"));
}

/// The middle of the times, but for the first three where there are more: those warm up.
pub(crate) fn median<T: Copy + PartialOrd>(times: &[T]) -> Option<T> {
    let mut counted = times[3.min(times.len().saturating_sub(1))..].to_vec();
    counted.sort_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
    counted.get(counted.len() / 2).copied()
}

/// Milliseconds.
pub(crate) fn milliseconds(seconds: f64) -> String {
    format!("{:.4}", seconds * 1e3)
}

/// A rate of bytes a second.
pub(crate) fn bandwidth(rate: f64) -> String {
    let places = if rate < 1e10 { 2 } else { 0 };
    format!("{:.places$} GB/s", rate / 1e9)
}

/// A rate of floating-point operations a second.
pub(crate) fn flops(rate: f64) -> String {
    format!("{:.0} TFLOP/s", rate / 1e12)
}

/// A part of a whole.
pub(crate) fn share(part: f64, whole: f64) -> String {
    format!("{:.1} %", 100.0 * part / whole)
}

/// Bytes in binary gigabytes.
pub(crate) fn gib(bytes: u64) -> String {
    format!("{:.2} GiB", bytes as f64 / f64::from(1 << 30))
}

/// What came out, or the end: a bench inside criterion has nobody to hand an error to.
pub(crate) fn checked<T, E: Into<anyhow::Error>>(outcome: Result<T, E>) -> T {
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {:#}", error.into());
        std::process::exit(1)
    })
}
