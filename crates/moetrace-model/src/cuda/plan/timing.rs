//! A pass in time: two slots, one stream that copies and one that computes.

/// What is computed after what was copied for it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Unit {
    /// Seconds of arithmetic.
    pub(super) compute: f64,
    /// Seconds of copying its weights into a slot; `None` where they are on the device.
    pub(super) copy: Option<f64>,
}

/// Seconds of a pass in a row of passes: of the third, when what is copied ahead for the next pass has evened out.
pub(super) fn pass_seconds(units: &[Unit]) -> f64 {
    let (mut computed, mut copied, mut turn) = (0.0f64, 0.0f64, 0);
    let mut free = [0.0f64; 2];
    let mut began = 0.0;
    for pass in 0..3 {
        if pass == 2 {
            began = computed;
        }
        for unit in units {
            if let Some(copy) = unit.copy {
                // A copy waits for the one before and for the slot.
                copied = copied.max(free[turn]) + copy;
                computed = computed.max(copied) + unit.compute;
                free[turn] = computed;
                turn = 1 - turn;
            } else {
                computed += unit.compute;
            }
        }
    }
    computed - began
}

#[cfg(test)]
mod tests {
    use super::*;

    fn units(compute: f64, copies: &[Option<f64>]) -> Vec<Unit> {
        copies.iter().map(|copy| Unit { compute, copy: *copy }).collect()
    }

    fn close(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-9, "{found}, expected {expected}");
    }

    #[test]
    fn the_longer_of_copy_and_arithmetic_counts() {
        close(pass_seconds(&units(2.0, &[None; 10])), 20.0);
        close(pass_seconds(&units(2.0, &[Some(1.0); 10])), 20.0);
        close(pass_seconds(&units(2.0, &[Some(3.0); 10])), 30.0);
    }

    #[test]
    fn layers_on_the_device_give_copies_time_where_they_lie_between() {
        let between: Vec<_> = [Some(4.0), None].repeat(5);
        close(pass_seconds(&units(2.0, &between)), 20.0);
        // At one end they help less: two slots are filled ahead and no more.
        let apart = [[Some(4.0); 5], [None; 5]].concat();
        assert!(pass_seconds(&units(2.0, &apart)) > 22.0);
    }

    #[test]
    fn nothing_takes_no_time() {
        close(pass_seconds(&[]), 0.0);
    }
}
