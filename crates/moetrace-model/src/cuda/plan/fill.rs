//! As many layers on the device as fit, the others on the host, and on disk what the host has no room for.

use super::budget::{Budget, Offload, Wishes};
use crate::cuda::memory::CudaMemoryPlan;
use crate::cuda::placement::{Place, Placement};

/// The placement with the most layers on the device that the budget allows, all else being given; `None` if even none of
/// them fits.
pub(super) fn filled(
    plan: &CudaMemoryPlan<'_>,
    budget: Budget,
    wishes: &Wishes,
    mut shape: Placement,
) -> Option<Placement> {
    let layers = plan.weights().layers.len();
    shape.longest_text = wishes.longest.max(1);
    shape.layers = (0..layers).map(|layer| wishes.layer(layer).unwrap_or(Place::Host)).collect();
    let free: Vec<usize> = (0..layers).filter(|layer| wishes.layer(*layer).is_none()).collect();
    let on_device = |count: usize| {
        let mut placement = shape.clone();
        for (_, layer) in free.iter().enumerate().filter(|(at, _)| is_chosen(*at, count, free.len())) {
            placement.layers[*layer] = Place::Device;
        }
        Some(placement).filter(|placement| plan.memory_of(placement).total() <= budget.device)
    };
    let placed = if wishes.offload == Offload::Always {
        on_device(0)
    } else {
        // All of them first: then there are no slots, which take as much as two layers.
        on_device(free.len()).or_else(|| most(free.len(), on_device)).or_else(|| {
            // The largest ones by themselves make slots smaller.
            let largest = by_size(plan, free.iter().copied());
            (1..free.len()).find_map(|count| {
                let mut placement = shape.clone();
                for layer in &largest[..count] {
                    placement.layers[*layer] = Place::Device;
                }
                Some(placement).filter(|placement| plan.memory_of(placement).total() <= budget.device)
            })
        })
    };
    // The more there is on the device, the less waits elsewhere.
    within_host(plan, budget, wishes, placed?)
}

/// Layers, those that take most first.
pub(super) fn by_size(plan: &CudaMemoryPlan<'_>, layers: impl Iterator<Item = usize>) -> Vec<usize> {
    let mut layers: Vec<usize> = layers.collect();
    layers.sort_by_key(|layer| std::cmp::Reverse(plan.weights().layers[*layer].total()));
    layers
}

/// The result for the largest count below `end` that has one, where smaller counts have one if larger ones do.
fn most<T>(end: usize, of: impl Fn(usize) -> Option<T>) -> Option<T> {
    let (mut from, mut to, mut best) = (0, end, None);
    while from < to {
        let middle = from.midpoint(to);
        match of(middle) {
            Some(found) => (from, best) = (middle + 1, Some(found)),
            None => to = middle,
        }
    }
    best
}

/// The placement with as few layers on disk as the host's budget asks for. They are spread evenly among those that are
/// not on the device: reading one takes longer than copying one, and is done while those before it are computed.
fn within_host(
    plan: &CudaMemoryPlan<'_>,
    budget: Budget,
    wishes: &Wishes,
    placement: Placement,
) -> Option<Placement> {
    let fits = |placement: &Placement| plan.memory_of(placement).host <= budget.host;
    if fits(&placement) {
        return Some(placement);
    }
    let is_free = |layer: &usize| wishes.layer(*layer).is_none() && placement.layers[*layer] == Place::Host;
    let free: Vec<usize> = (0..placement.layers.len()).filter(is_free).collect();
    if !wishes.reads_disk {
        return None;
    }
    let on_disk = |count: usize| {
        let mut placement = placement.clone();
        for (_, layer) in free.iter().enumerate().filter(|(at, _)| is_chosen(*at, count, free.len())) {
            placement.layers[*layer] = Place::Disk;
        }
        Some(placement).filter(fits)
    };
    most(free.len() + 1, |stay| on_disk(free.len() - stay))
}

/// Whether one of `all` is among `count` that lie as evenly as can be.
pub(super) fn is_chosen(at: usize, count: usize, all: usize) -> bool {
    all > 0 && (at + 1) * count / all > at * count / all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chosen_are_as_many_as_were_asked_for_and_lie_evenly() {
        for all in 1..40usize {
            for count in 0..=all {
                let chosen: Vec<usize> = (0..all).filter(|at| is_chosen(*at, count, all)).collect();
                assert_eq!(chosen.len(), count);
                let gaps = chosen.windows(2).map(|pair| pair[1] - pair[0]);
                assert!(gaps.clone().max().unwrap_or(0) <= gaps.min().unwrap_or(0) + 1, "{chosen:?}");
            }
        }
        assert!(!is_chosen(0, 0, 0));
    }

    #[test]
    fn the_most_that_does_is_found() {
        for limit in 0..10usize {
            let found = most(10, |count| (count <= limit).then_some(count));
            assert_eq!(found, Some(limit.min(9)));
        }
        assert_eq!(most(10, |_| None::<usize>), None);
    }
}
