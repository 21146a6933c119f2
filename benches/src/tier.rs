//! Memory limits of cards, to measure on one what another would have room for.

/// A card whose memory is counted on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tier {
    /// As `MOETRACE_TIER` names it.
    pub name: &'static str,
    /// Bytes that weights, buffers and the context may take together.
    pub limit: u64,
}

const GB: u64 = 1_000_000_000;

/// The limits of the program's presets of the same names, `crates/moetrace/src/device/preset.rs`, where their reasons
/// stand.
pub const TIERS: [Tier; 7] = [
    Tier { name: "rtx3090", limit: 20 * GB },
    Tier { name: "rtx4090", limit: 20 * GB },
    Tier { name: "a6000", limit: 45 * GB },
    Tier { name: "a100-40", limit: 38 * GB },
    Tier { name: "a100-80", limit: 76 * GB },
    Tier { name: "h100", limit: 76 * GB },
    Tier { name: "h200", limit: 134 * GB },
];

impl Tier {
    /// The tier of a name.
    ///
    /// # Errors
    /// All names, where it is none of them.
    pub fn named(name: &str) -> Result<Self, String> {
        TIERS.into_iter().find(|tier| tier.name == name).ok_or_else(|| {
            let names = TIERS.map(|tier| tier.name).join(", ");
            format!("no tier is called {name:?}; there are {names}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tier_is_found_by_its_name_and_no_other() {
        assert!(TIERS.iter().all(|tier| Tier::named(tier.name) == Ok(*tier)));
        assert!(Tier::named("RTX 3090").is_err_and(|words| words.contains("rtx3090, rtx4090")));
    }
}
