//! The formulas of temporal locality, and what they give for tokens that choose independently.

/// Part of the K experts that two tokens share if each chooses K of E at random: K / E.
pub fn expected_reuse(experts: usize, chosen: usize) -> f64 {
    chosen as f64 / experts as f64
}

/// The same for independent tokens that keep these loads: the sum over experts of p^2 / K with p =
/// n / T; 0 without tokens.
pub fn expected_reuse_of_loads(loads: &[u64], chosen: usize) -> f64 {
    let slots = loads.iter().sum::<u64>() as f64;
    if slots == 0.0 {
        return 0.0;
    }
    // p is K times a share of the slots.
    loads.iter().map(|&n| (n as f64 / slots).powi(2)).sum::<f64>() * chosen as f64
}

/// Probability that two random choices share an expert among their first two: 1 - C(E-2, 2) / C(E, 2); 46.4 % for 8
/// experts (Mixtral, arXiv 2401.04088, section 5). With K = 1 there is but one: 1 / E.
pub fn expected_first_two(experts: usize, chosen: usize) -> f64 {
    let e = experts as f64;
    if chosen == 1 {
        return 1.0 / e;
    }
    1.0 - (e - 2.0) * (e - 3.0).max(0.0) / (e * (e - 1.0))
}

/// Mean length of the runs of an expert that each token chooses with probability K / E: 1 / (1 - K / E). `None` where
/// every expert is chosen.
pub fn expected_run(experts: usize, chosen: usize) -> Option<f64> {
    (chosen < experts).then(|| 1.0 / (1.0 - expected_reuse(experts, chosen)))
}

/// Mean number of distinct experts in a window, from absences (Denning and Schwartz, *Properties of the working-set
/// model*, 1972): an expert is missing from g - w + 1 of the windows of w tokens that lie within an absence of g.
/// `missing` is the sum of these over experts and absences. 0 without windows.
pub fn working_set(experts: usize, windows: u64, missing: u64) -> f64 {
    if windows == 0 { 0.0 } else { experts as f64 - missing as f64 / windows as f64 }
}

/// Distinct experts of `window` independent tokens with these loads: the sum over experts of
/// 1 - (1 - p)^w with p = n / T.
pub fn expected_working_set(loads: &[u64], tokens: u64, window: usize) -> f64 {
    let p = |n: u64| n as f64 / tokens.max(1) as f64;
    loads.iter().map(|&n| -f64::exp_m1(window as f64 * f64::ln_1p(-p(n)))).sum()
}

/// Hits of a least-recently-used cache of `size` experts over all look-ups. `distances` is `[E + 1]`: look-ups of
/// experts not used before, then those at stack distance 1 to E. 0 without look-ups.
pub fn lru_hit_rate(distances: &[u64], size: usize) -> f64 {
    let lookups: u64 = distances.iter().sum();
    let hits: u64 = distances.iter().skip(1).take(size).sum();
    if lookups == 0 { 0.0 } else { hits as f64 / lookups as f64 }
}

/// Hits of a cache that always holds the `size` experts of the highest load: the best that does not change, known
/// only afterwards.
pub fn static_hit_rate(loads: &[u64], size: usize) -> f64 {
    crate::affinity::top_mass(loads, size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nulls_are_those_of_the_published_tables() {
        // Mixtral's table: 12.5 % and 46 %.
        assert_eq!(expected_reuse(8, 1), 0.125);
        assert!((expected_first_two(8, 2) - (1.0 - 15.0 / 28.0)).abs() < 1e-12);
        assert_eq!(
            (expected_first_two(8, 1), expected_first_two(2, 2), expected_first_two(3, 2)),
            (0.125, 1.0, 1.0)
        );
        assert_eq!((expected_run(8, 2), expected_run(4, 4)), (Some(4.0 / 3.0), None));
    }

    #[test]
    fn equal_loads_give_what_random_choices_give() {
        assert!((expected_reuse_of_loads(&[9; 8], 2) - 0.25).abs() < 1e-12);
        assert!(
            (expected_working_set(&[9; 8], 36, 3) - crate::coverage::expected_experts(8, 2, 3)).abs() < 1e-12
        );
        assert_eq!(expected_reuse_of_loads(&[0; 8], 2), 0.0);
        assert_eq!((expected_working_set(&[5, 0], 5, 4), expected_working_set(&[0, 0], 0, 4)), (1.0, 0.0));
    }

    #[test]
    fn caches_hit_what_lies_within_their_size() {
        let distances = [3, 4, 2, 0, 1];
        assert_eq!([0, 1, 2, 4].map(|size| lru_hit_rate(&distances, size)), [0.0, 0.4, 0.6, 0.7]);
        assert_eq!(lru_hit_rate(&[0; 5], 2), 0.0);
        assert_eq!((static_hit_rate(&[1, 5, 4], 2), static_hit_rate(&[0, 0], 1)), (0.9, 0.0));
    }
}
