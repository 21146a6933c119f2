//! How unevenly the experts of one layer are loaded.

/// MaxVio: the highest load over the mean load, minus 1; 0 is perfect balance, E - 1 one expert taking everything.
/// Wang et al., "Auxiliary-loss-free load balancing strategy for mixture-of-experts" (arXiv 2408.15664).
///
/// `loads` is `[E]`. 0 if nothing was routed.
pub fn max_vio(loads: &[u64]) -> f64 {
    let total: u64 = loads.iter().sum();
    let most = loads.iter().max().copied().unwrap_or(0);
    if total == 0 { 0.0 } else { most as f64 * loads.len() as f64 / total as f64 - 1.0 }
}

/// Coefficient of variation: standard deviation (of the population, not of a sample) over the mean.
///
/// `loads` is `[E]`. 0 if nothing was routed; sqrt(E - 1) if one expert takes everything.
pub fn coefficient_of_variation(loads: &[u64]) -> f64 {
    let total: u64 = loads.iter().sum();
    if total == 0 {
        return 0.0;
    }
    let experts = loads.len() as f64;
    let mean = total as f64 / experts;
    let variance = loads.iter().map(|&n| (n as f64 - mean).powi(2)).sum::<f64>() / experts;
    variance.sqrt() / mean
}

/// Gini coefficient: with loads ascending, sum over i = 1..E of `(2i - E - 1) n_i`, over E times the total.
///
/// `loads` is `[E]`. 0 if all are equal or nothing was routed; (E - 1) / E if one expert takes everything.
pub fn gini(loads: &[u64]) -> f64 {
    let total: u64 = loads.iter().sum();
    if total == 0 {
        return 0.0;
    }
    let mut ascending = loads.to_vec();
    ascending.sort_unstable();
    let experts = ascending.len() as i128;
    let weighted: i128 =
        ascending.iter().zip(1i128..).map(|(&n, i)| (2 * i - experts - 1) * i128::from(n)).sum();
    weighted as f64 / (experts as f64 * total as f64)
}

/// The load that a part `q` of the experts does not exceed, between 0 and 1: `q` = 0.5 is the median. Between two
/// loads the line between them (the default of `NumPy`, Hyndman and Fan's type 7). 0 without experts.
pub fn percentile(loads: &[u64], q: f64) -> f64 {
    let mut ascending = loads.to_vec();
    ascending.sort_unstable();
    let Some(last) = ascending.len().checked_sub(1) else { return 0.0 };
    let at = q.clamp(0.0, 1.0) * last as f64;
    let (low, high) = (ascending[at.floor() as usize] as f64, ascending[at.ceil() as usize] as f64);
    low + (high - low) * at.fract()
}

/// Skewness and excess kurtosis of the loads (moments of the population, not of a sample): 0 and 0 for a normal
/// distribution. 0 and 0 if all are equal.
pub fn skewness_and_kurtosis(loads: &[u64]) -> (f64, f64) {
    let experts = loads.len() as f64;
    let mean = loads.iter().sum::<u64>() as f64 / experts;
    let moment = |power: i32| loads.iter().map(|&n| (n as f64 - mean).powi(power)).sum::<f64>() / experts;
    let variance = moment(2);
    if variance > 0.0 {
        (moment(3) / variance.powf(1.5), moment(4) / (variance * variance) - 3.0)
    } else {
        (0.0, 0.0)
    }
}

/// The part of all slots that the `most` busiest experts serve; `most` / E if all are alike, 0 if nothing was routed.
pub fn busiest_share(loads: &[u64], most: usize) -> f64 {
    let mut descending = loads.to_vec();
    descending.sort_unstable_by(|a, b| b.cmp(a));
    let (busiest, total): (u64, u64) = (descending.iter().take(most).sum(), loads.iter().sum());
    if total == 0 { 0.0 } else { busiest as f64 / total as f64 }
}

/// The auxiliary loss of Switch Transformers (Fedus et al., arXiv 2101.03961) for top-K: `E sum over e of f_e P_e`, with
/// `f_e = n_e / (K T)` and `P_e` the mean over tokens of the router's probability. 1 if either is uniform.
///
/// `loads` and `probabilities` are `[E]`. 0 if nothing was routed.
pub fn auxiliary_loss(loads: &[u64], probabilities: &[f64]) -> f64 {
    let total: u64 = loads.iter().sum();
    if total == 0 {
        return 0.0;
    }
    let sum: f64 = loads.iter().zip(probabilities).map(|(&n, p)| n as f64 * p).sum();
    loads.len() as f64 * sum / total as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uniform_loads_have_no_violation_no_variation_and_no_gini() {
        for experts in [1, 2, 64] {
            let loads = vec![7; experts];
            assert_eq!((max_vio(&loads), coefficient_of_variation(&loads), gini(&loads)), (0.0, 0.0, 0.0));
        }
    }

    #[test]
    fn one_expert_taking_all_gives_the_closed_forms() {
        for experts in [2usize, 8, 64] {
            let mut loads = vec![0; experts];
            loads[experts / 2] = 1000;
            let e = experts as f64;
            assert_eq!(max_vio(&loads), e - 1.0);
            assert!((coefficient_of_variation(&loads) - (e - 1.0).sqrt()).abs() < 1e-12);
            assert!((gini(&loads) - (e - 1.0) / e).abs() < 1e-15);
        }
    }

    #[test]
    fn gini_is_half_the_mean_absolute_difference_over_the_mean() {
        let loads = [5u64, 0, 12, 3, 3, 40];
        let pairs = loads.iter().flat_map(|&a| loads.iter().map(move |&b| a.abs_diff(b)));
        let e = loads.len() as f64;
        let mean = loads.iter().sum::<u64>() as f64 / e;
        let by_definition = pairs.sum::<u64>() as f64 / (2.0 * e * e * mean);
        assert!((gini(&loads) - by_definition).abs() < 1e-15);
    }

    #[test]
    fn percentiles_moments_and_shares_are_those_of_the_worked_example() {
        let loads = [2u64, 0, 4, 10];
        let quartiles = [0.0, 0.25, 0.5, 0.75, 1.0].map(|q| percentile(&loads, q));
        assert_eq!(quartiles, [0.0, 1.5, 3.0, 5.5, 10.0]);
        assert_eq!(
            (busiest_share(&loads, 1), busiest_share(&loads, 2), busiest_share(&[0], 1)),
            (0.625, 0.875, 0.0)
        );
        // Deviations from 4: -2, -4, 0, 6.
        let (skewness, kurtosis) = skewness_and_kurtosis(&loads);
        assert!((skewness - 36.0 / 14f64.powf(1.5)).abs() < 1e-12);
        assert!((kurtosis - (392.0 / 196.0 - 3.0)).abs() < 1e-12);
        assert_eq!((percentile(&[], 0.5), skewness_and_kurtosis(&[3, 3])), (0.0, (0.0, 0.0)));
    }

    #[test]
    fn the_auxiliary_loss_is_one_if_loads_or_probabilities_are_uniform() {
        assert_eq!(auxiliary_loss(&[5, 5, 5, 5], &[0.7, 0.1, 0.1, 0.1]), 1.0);
        assert_eq!(auxiliary_loss(&[20, 0, 0, 0], &[0.25; 4]), 1.0);
        assert_eq!(
            (auxiliary_loss(&[20, 0, 0, 0], &[1.0, 0.0, 0.0, 0.0]), auxiliary_loss(&[0; 4], &[0.25; 4])),
            (4.0, 0.0)
        );
    }

    #[test]
    fn nothing_routed_is_balanced() {
        assert_eq!((max_vio(&[0, 0]), coefficient_of_variation(&[0, 0]), gini(&[])), (0.0, 0.0, 0.0));
    }
}
