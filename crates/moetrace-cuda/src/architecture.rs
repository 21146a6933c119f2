//! The kinds of GPU that kernels are compiled for.

use std::fmt;

/// A target of the compiler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Architecture {
    /// A100.
    Sm80,
    /// RTX 30, A40, A6000.
    Sm86,
    /// RTX 40, L4, L40; also what newer GPUs than those named here translate for themselves.
    Sm89,
    /// H100 and H200, with the instructions that only they have.
    Sm90a,
}

impl Architecture {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Sm80, Self::Sm86, Self::Sm89, Self::Sm90a];

    /// What to compile for on a GPU of a compute capability (major, minor); `None` for those before 8.0.
    pub fn of_capability(capability: (i32, i32)) -> Option<Self> {
        match capability {
            (9, 0) => Some(Self::Sm90a),
            (8, 0..=5) => Some(Self::Sm80),
            (8, 6..=8) => Some(Self::Sm86),
            (8.., _) => Some(Self::Sm89),
            _ => None,
        }
    }

    /// NVRTC's name for its intermediate code.
    pub fn compute_name(self) -> &'static str {
        match self {
            Self::Sm80 => "compute_80",
            Self::Sm86 => "compute_86",
            Self::Sm89 => "compute_89",
            Self::Sm90a => "compute_90a",
        }
    }

    /// The assembler's name for its machine code.
    pub fn machine_name(self) -> &'static str {
        match self {
            Self::Sm80 => "sm_80",
            Self::Sm86 => "sm_86",
            Self::Sm89 => "sm_89",
            Self::Sm90a => "sm_90a",
        }
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.machine_name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_capability_from_8_0_on_has_a_target_that_runs_on_it() {
        let of = Architecture::of_capability;
        assert_eq!([of((6, 1)), of((7, 5))], [None, None]);
        assert_eq!(of((8, 0)), Some(Architecture::Sm80));
        assert_eq!([of((8, 6)), of((8, 7))], [Some(Architecture::Sm86); 2]);
        assert_eq!(of((9, 0)), Some(Architecture::Sm90a));
        // Code for 9.0a runs on 9.0 alone; that for 8.9 on everything newer.
        assert_eq!([of((8, 9)), of((10, 0)), of((12, 0))], [Some(Architecture::Sm89); 3]);
    }
}
