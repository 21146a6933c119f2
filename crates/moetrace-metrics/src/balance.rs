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
    fn nothing_routed_is_balanced() {
        assert_eq!((max_vio(&[0, 0]), coefficient_of_variation(&[0, 0]), gini(&[])), (0.0, 0.0, 0.0));
    }
}
