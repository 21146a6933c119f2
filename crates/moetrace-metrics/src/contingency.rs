//! How strongly row and column of a table of counts go together, `[rows, columns]`; rows and columns without counts
//! are left out.

/// The sums that every formula here needs.
struct Margins {
    rows: Vec<u64>,
    columns: Vec<u64>,
    total: f64,
}

impl Margins {
    fn of(joint: &[u64], columns: usize) -> Self {
        let mut column_sums = vec![0u64; columns];
        let mut rows = Vec::with_capacity(joint.len() / columns.max(1));
        for row in joint.chunks_exact(columns.max(1)) {
            column_sums.iter_mut().zip(row).for_each(|(sum, n)| *sum += n);
            rows.push(row.iter().sum());
        }
        let total = rows.iter().sum::<u64>() as f64;
        Self { rows, columns: column_sums, total }
    }

    /// Rows and columns that hold something, less one each.
    fn freedom(&self) -> (f64, f64) {
        let used = |sums: &[u64]| (sums.iter().filter(|&&n| n > 0).count() as f64 - 1.0).max(0.0);
        (used(&self.rows), used(&self.columns))
    }
}

/// Pearson's chi-square: sum of (n - m)^2 / m over the cells, m being row sum times column sum over the total.
///
/// 0 where row and column are independent; at most the total times (the lesser of rows and columns, less one).
pub fn chi_square(joint: &[u64], columns: usize) -> f64 {
    let margins = Margins::of(joint, columns);
    let mut sum = 0.0;
    for (row, &row_sum) in joint.chunks_exact(columns.max(1)).zip(&margins.rows) {
        for (&n, &column_sum) in row.iter().zip(&margins.columns) {
            let expected = row_sum as f64 * column_sum as f64 / margins.total;
            if expected > 0.0 {
                sum += (n as f64 - expected).powi(2) / expected;
            }
        }
    }
    sum
}

/// Cramér's V: sqrt(chi-square / (total times (the lesser of rows and columns, less one))), from 0 to 1.
///
/// 0 where there are not two rows and two columns.
pub fn cramers_v(joint: &[u64], columns: usize) -> f64 {
    let margins = Margins::of(joint, columns);
    let (rows, columns_less_one) = margins.freedom();
    let most = margins.total * rows.min(columns_less_one);
    if most == 0.0 { 0.0 } else { (chi_square(joint, columns) / most).sqrt().min(1.0) }
}

/// Cramér's V less what independence would give: Bergsma, "A bias-correction for Cramér's V and Tschuprow's T",
/// Journal of the Korean Statistical Society 42, 2013.
pub fn cramers_v_corrected(joint: &[u64], columns: usize) -> f64 {
    let margins = Margins::of(joint, columns);
    let (r, c) = margins.freedom();
    let n = margins.total;
    if n < 2.0 || r.min(c) == 0.0 {
        return 0.0;
    }
    let phi = (chi_square(joint, columns) / n - r * c / (n - 1.0)).max(0.0);
    // r and c are rows and columns less one here, as everywhere in this function.
    let corrected = |less_one: f64| less_one - less_one.powi(2) / (n - 1.0);
    let most = corrected(r).min(corrected(c));
    if most <= 0.0 { 0.0 } else { (phi / most).sqrt().min(1.0) }
}

/// Mutual information in bits to expect of an independent table with as many counts, the counts being independent:
/// (rows - 1) (columns - 1) / (2 n ln 2), to first order (Miller, *Note on the bias of information estimates*, 1955).
///
/// Tokens of one text are alike, so that chance gives more than this: it is the least to expect.
pub fn independent_information(joint: &[u64], columns: usize) -> f64 {
    let margins = Margins::of(joint, columns);
    let (r, c) = margins.freedom();
    if margins.total == 0.0 { 0.0 } else { r * c / (2.0 * margins.total * std::f64::consts::LN_2) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_by_hand() {
        // Expected 4, 6 / 4, 6: chi-square = 4/4 + 4/6 + 4/4 + 4/6 = 10/3.
        let joint = [6, 4, 2, 8];
        assert!((chi_square(&joint, 2) - 10.0 / 3.0).abs() < 1e-12);
        assert!((cramers_v(&joint, 2) - (1.0f64 / 6.0).sqrt()).abs() < 1e-12);
        // phi^2 = 1/6 - 1/19; both sides are 1 - 1/19.
        let corrected = ((1.0f64 / 6.0 - 1.0 / 19.0) / (18.0 / 19.0)).sqrt();
        assert!((cramers_v_corrected(&joint, 2) - corrected).abs() < 1e-12);
        assert!((independent_information(&joint, 2) - 1.0 / (40.0 * 2f64.ln())).abs() < 1e-12);
    }

    #[test]
    fn rows_that_share_no_column_have_a_v_of_one_and_independent_ones_of_none() {
        assert!((cramers_v(&[5, 0, 0, 0, 0, 0, 0, 7, 2], 3) - 1.0).abs() < 1e-12);
        assert_eq!((cramers_v(&[1, 2, 2, 4], 2), cramers_v_corrected(&[1, 2, 2, 4], 2)), (0.0, 0.0));
    }

    #[test]
    fn nothing_to_tell_apart_gives_nothing() {
        for joint in [&[][..], &[0, 0, 0, 0], &[3, 5, 0, 0], &[3, 0, 4, 0]] {
            assert_eq!(
                (chi_square(joint, 2), cramers_v(joint, 2), cramers_v_corrected(joint, 2)),
                (0.0, 0.0, 0.0)
            );
        }
    }
}
