//! `--max-memory`: how much of a GPU's memory a run may take.

/// A limit as it was typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MemoryLimit {
    /// The GPU that it is for; whichever is used without.
    pub(crate) gpu: Option<usize>,
    /// How much.
    pub(crate) amount: Amount,
}

/// Bytes, or a share of all memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Amount {
    /// Bytes.
    Bytes(u64),
    /// Per cent of the GPU's memory, 1 to 100.
    Percent(u64),
}

impl Amount {
    /// Bytes of a GPU with `total` bytes.
    pub(crate) fn of(self, total: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Percent(percent) => (u128::from(total) * u128::from(percent) / 100) as u64,
        }
    }
}

/// `20GB`, `80%`, `gpu=20GB` or `0=20GB`.
pub(crate) fn memory_limit(text: &str) -> Result<MemoryLimit, String> {
    if text.contains(',') {
        return Err("expected one limit: a run uses one GPU".to_owned());
    }
    let (place, amount) = match text.split_once('=') {
        None => (None, text),
        Some((place, amount)) => (Some(place), amount),
    };
    let gpu = match place {
        None | Some("gpu") => None,
        Some("cpu") => {
            return Err("cpu= would hold weights in host memory, which moetrace cannot do yet".to_owned());
        }
        Some(number) if is_number(number) => {
            Some(number.parse::<usize>().map_err(|error| format!("GPU {number}: {error}"))?)
        }
        Some(other) => {
            return Err(format!("{other:?} is no place: expected gpu= or a GPU's number, as 0=20GB"));
        }
    };
    Ok(MemoryLimit { gpu, amount: parse_amount(amount)? })
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
fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_is_read() {
        let bytes = |gpu, bytes| Ok(MemoryLimit { gpu, amount: Amount::Bytes(bytes) });
        assert_eq!(memory_limit("20GB"), bytes(None, 20_000_000_000));
        assert_eq!(memory_limit("18GiB"), bytes(None, 18 << 30));
        assert_eq!(memory_limit("gpu=500MB"), bytes(None, 500_000_000));
        assert_eq!(memory_limit("0=20GB"), bytes(Some(0), 20_000_000_000));
        let share = memory_limit("3=80%").unwrap();
        assert_eq!(share, MemoryLimit { gpu: Some(3), amount: Amount::Percent(80) });
        assert_eq!(share.amount.of(100_000_000_000), 80_000_000_000);
        assert_eq!(Amount::Percent(100).of(u64::MAX), u64::MAX);
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
            ("cpu=16GB", "host memory"),
            ("0=20GB,cpu=16GB", "one GPU"),
            ("-1=20GB", "no place"),
            ("+1=20GB", "no place"),
            ("=20GB", "no place"),
            ("cuda:0=20GB", "no place"),
            ("0=0=20GB", "invalid"),
            ("99999999999999999999999=1GB", "GPU 9"),
        ] {
            let refused = memory_limit(text).unwrap_err();
            assert!(refused.contains(named), "{text}: {refused}");
        }
    }
}
