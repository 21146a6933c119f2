//! `--max-memory`: how much memory a run may take, of a GPU and of the host.

/// Limits as they were typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct MemoryLimits {
    /// The GPU that the limit is for; whichever is used without.
    pub(crate) gpu: Option<usize>,
    /// How much of a GPU's memory.
    pub(crate) device: Option<Amount>,
    /// How much of the host's.
    pub(crate) host: Option<Amount>,
}

/// Bytes, or a share of all memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Amount {
    /// Bytes.
    Bytes(u64),
    /// Per cent of all memory, 1 to 100.
    Percent(u64),
}

impl Amount {
    /// Bytes where there are `total` in all.
    pub(crate) fn of(self, total: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Percent(percent) => (u128::from(total) * u128::from(percent) / 100) as u64,
        }
    }
}

/// One or two of `20GB`, `gpu=80%`, `0=20GB` and `cpu=16GB`, with a comma between them.
pub(crate) fn memory_limits(text: &str) -> Result<MemoryLimits, String> {
    let mut limits = MemoryLimits::default();
    for part in text.split(',') {
        let (place, amount) = match part.split_once('=') {
            None => ("gpu", part),
            Some((place, amount)) => (place, amount),
        };
        let held = match place {
            "cpu" => &mut limits.host,
            "gpu" => &mut limits.device,
            number if is_number(number) => {
                // A second one is refused below.
                limits.gpu = Some(number.parse().map_err(|error| format!("GPU {number}: {error}"))?);
                &mut limits.device
            }
            other => {
                return Err(format!(
                    "{other:?} is no place: expected gpu=, cpu= or a GPU's number, as 0=20GB"
                ));
            }
        };
        if held.replace(parse_amount(amount)?).is_some() {
            let whose = if place == "cpu" { "the host" } else { "a GPU, and a run uses one" };
            return Err(format!("{part}: a second limit for {whose}"));
        }
    }
    Ok(limits)
}

fn parse_amount(text: &str) -> Result<Amount, String> {
    if let Some(percent) = text.strip_suffix('%') {
        let percent = Some(percent).filter(|text| is_number(text)).and_then(|text| text.parse::<u64>().ok());
        let percent = percent.filter(|percent| (1..=100).contains(percent));
        return percent.map(Amount::Percent).ok_or_else(|| "expected 1% to 100%".to_owned());
    }
    if !text.ends_with('B') {
        return Err("expected an amount with its unit, as 20GB, 18GiB or 80%".to_owned());
    }
    crate::args::size(text).map(Amount::Bytes)
}

/// Digits alone: `parse` would take a sign too.
pub(super) fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_is_read() {
        let gigabytes = |n: u64| Some(Amount::Bytes(n * 1_000_000_000));
        let device = |gpu, device| Ok(MemoryLimits { gpu, device, host: None });
        assert_eq!(memory_limits("20GB"), device(None, gigabytes(20)));
        assert_eq!(memory_limits("18GiB"), device(None, Some(Amount::Bytes(18 << 30))));
        assert_eq!(memory_limits("gpu=500MB"), device(None, Some(Amount::Bytes(500_000_000))));
        assert_eq!(memory_limits("0=20GB"), device(Some(0), gigabytes(20)));
        assert_eq!(memory_limits("gpu=2.5GB"), device(None, Some(Amount::Bytes(2_500_000_000))));
        assert_eq!(memory_limits("0.25GiB"), device(None, Some(Amount::Bytes(1 << 28))));
        for refused in ["2.5B", "2.GB", ".5GB", "1.0000000001GB", "0.0GB", "1e3GB", "99999999999999999999GB"]
        {
            assert!(memory_limits(refused).is_err(), "{refused}");
        }
        assert_eq!(memory_limits("3=80%"), device(Some(3), Some(Amount::Percent(80))));
        assert_eq!(Amount::Percent(80).of(100_000_000_000), 80_000_000_000);
        assert_eq!(Amount::Percent(100).of(u64::MAX), u64::MAX);
    }

    #[test]
    fn gpu_and_host_have_a_limit_each_in_either_order() {
        let gigabytes = |n: u64| Some(Amount::Bytes(n * 1_000_000_000));
        let both = |gpu, host| Ok(MemoryLimits { gpu, device: gigabytes(20), host });
        assert_eq!(memory_limits("0=20GB,cpu=16GB"), both(Some(0), gigabytes(16)));
        assert_eq!(memory_limits("cpu=16GB,0=20GB"), both(Some(0), gigabytes(16)));
        assert_eq!(memory_limits("20GB,cpu=50%"), both(None, Some(Amount::Percent(50))));
        assert_eq!(memory_limits("cpu=16GB,gpu=20GB"), both(None, gigabytes(16)));
        let host = MemoryLimits { host: gigabytes(16), ..MemoryLimits::default() };
        assert_eq!(memory_limits("cpu=16GB"), Ok(host));
    }

    #[test]
    fn whatever_is_not_one_of_them_is_refused_with_what_is() {
        for (text, named) in [
            ("", "unit"),
            ("20", "unit"),
            ("0GB", "nothing"),
            ("-1GB", "invalid"),
            ("20gb", "unit"),
            ("20XB", "XB"),
            ("0%", "1%"),
            ("101%", "1%"),
            ("+5%", "1%"),
            ("8.5%", "1%"),
            ("cpu=16", "unit"),
            ("20GB,", "unit"),
            ("0=20GB,1=20GB", "a run uses one"),
            ("20GB,0=20GB", "second limit"),
            ("cpu=1GB,cpu=1GB", "the host"),
            ("host=1GB", "no place"),
            ("-1=20GB", "no place"),
            ("+1=20GB", "no place"),
            ("=20GB", "no place"),
            ("cuda:0=20GB", "no place"),
            ("0=0=20GB", "invalid"),
            ("99999999999999999999999=1GB", "GPU 9"),
        ] {
            let refused = memory_limits(text).unwrap_err();
            assert!(refused.contains(named), "{text}: {refused}");
        }
    }
}
