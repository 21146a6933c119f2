//! How much of this process lies in memory, as the kernel tells it.

/// Bytes that lie in memory now; `None` where there is no `/proc`.
pub(crate) fn now() -> Option<u64> {
    told("VmRSS")
}

/// Most bytes that ever did.
pub(crate) fn most() -> Option<u64> {
    told("VmHWM")
}

fn told(field: &str) -> Option<u64> {
    bytes_of(field, &std::fs::read_to_string("/proc/self/status").ok()?)
}

/// `VmRSS:      2048 kB` in bytes.
fn bytes_of(field: &str, status: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_says_kilobytes_and_means_kibibytes() {
        let status = "Name:\tmoetrace\nVmHWM:\t    3072 kB\nVmRSS:\t    2048 kB\nVmRSSX:\t1 kB\n";
        assert_eq!((bytes_of("VmRSS", status), bytes_of("VmHWM", status)), (Some(2 << 20), Some(3 << 20)));
        assert_eq!((bytes_of("VmSwap", status), bytes_of("VmRSS", "VmRSS:\t-1 kB")), (None, None));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn no_more_lies_in_memory_now_than_ever_did() {
        let now = now().unwrap();
        assert!(now > 0 && most().unwrap() >= now);
    }
}
