//! Groups compared over equal numbers of tokens, since information from few tokens is too high.

use super::report::{EqualisedLayer, EqualisedSamples};
use crate::{contingency, domain};

/// A group of which fewer tokens are kept is left out: it would take the others down to what it has.
const LEAST_TOKENS: u64 = 1_024;

/// Tokens of one sample and its expert counts, `[L, E]`.
pub(super) type SampleLoads<'a> = (u64, &'a [u32]);

/// Takes samples of each group in their order until they hold as many tokens as the group with the fewest.
///
/// `groups` has the samples of each group, `layers` the numbers of the L layers. `None` unless two groups have
/// [`LEAST_TOKENS`].
pub(super) fn equalise(
    groups: &[Vec<SampleLoads<'_>>],
    layers: &[u16],
    experts: usize,
) -> Option<EqualisedSamples> {
    let held = |samples: &[SampleLoads<'_>]| samples.iter().map(|(tokens, _)| tokens).sum::<u64>();
    let enough: Vec<usize> = (0..groups.len()).filter(|&g| held(&groups[g]) >= LEAST_TOKENS).collect();
    let wanted = enough.iter().map(|&g| held(&groups[g])).min()?;
    let taken: Vec<Taken> =
        enough.iter().map(|&g| take(&groups[g], wanted, layers.len() * experts)).collect();
    if taken.len() < 2 {
        return None;
    }
    let of_layer = |(ordinal, &layer): (usize, &u16)| {
        let rows: Vec<&[u64]> = taken.iter().map(|t| &t.loads[ordinal * experts..][..experts]).collect();
        EqualisedLayer {
            layer,
            information_bits: domain::jensen_shannon(&rows),
            independent_information_bits: contingency::independent_information(&rows.concat(), experts),
        }
    };
    Some(EqualisedSamples {
        groups: enough.iter().map(|&g| g as u32).collect(),
        tokens: taken.iter().map(|t| t.tokens).collect(),
        layers: layers.iter().enumerate().map(of_layer).collect(),
    })
}

struct Taken {
    tokens: u64,
    /// `[L, E]`.
    loads: Vec<u64>,
}

fn take(samples: &[SampleLoads<'_>], wanted: u64, slots: usize) -> Taken {
    let mut taken = Taken { tokens: 0, loads: vec![0; slots] };
    for (tokens, counts) in samples {
        if taken.tokens >= wanted {
            break;
        }
        taken.tokens += tokens;
        taken.loads.iter_mut().zip(*counts).for_each(|(load, &n)| *load += u64::from(n));
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_group_gives_as_many_tokens_as_the_least_to_within_a_sample() {
        let (a, b) = ([4u32, 0], [2u32, 2]);
        let groups =
            [vec![(400, &a[..]); 10], vec![(300, &b[..]); 5], vec![(1_023, &b[..])], vec![(600, &b[..]); 2]];
        let found = equalise(&groups, &[7], 2).unwrap();
        // The least that is enough is 2 * 600.
        assert_eq!((found.groups, found.tokens), (vec![0, 1, 3], vec![1_200, 1_200, 1_200]));
        let expected = domain::jensen_shannon(&[&[1, 0], &[1, 1], &[1, 1]]);
        assert!((found.layers[0].information_bits - expected).abs() < 1e-12);
        assert_eq!(found.layers[0].layer, 7);
        assert_eq!(equalise(&groups[2..], &[7], 2), None);
    }
}
