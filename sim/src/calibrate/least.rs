//! Least squares, with what the errors of the result are.

/// Figures that a line of points was fitted by, as many as there are columns.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Fit<const N: usize> {
    pub(super) values: [f64; N],
    /// Standard errors, by how far the points lie from the fit. Of as many points as columns: nought.
    pub(super) errors: [f64; N],
}

/// One point: what was measured, what it is made of, and how much it counts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Point<const N: usize> {
    pub(super) parts: [f64; N],
    pub(super) measured: f64,
    /// One over the square of its expected error.
    pub(super) weight: f64,
}

/// Columns that differ by less than this share of themselves from a sum of others are that sum.
const DISTINCT: f64 = 1e-6;

impl<const N: usize> Fit<N> {
    /// `None`: there are too few points, or they do not tell the columns apart.
    pub(super) fn of(points: &[Point<N>]) -> Option<Self> {
        if points.len() < N {
            return None;
        }
        // Columns are brought to one size, so that what is small is so by itself.
        let mut sizes = [0.0; N];
        for point in points {
            for (size, part) in sizes.iter_mut().zip(point.parts) {
                *size += point.weight * part * part;
            }
        }
        let sizes = sizes.map(f64::sqrt);
        if sizes.iter().any(|size| *size <= 0.0) {
            return None;
        }
        let mut normal = [[0.0; N]; N];
        let mut right = [0.0; N];
        for point in points {
            for row in 0..N {
                let own = point.weight * point.parts[row] / sizes[row];
                right[row] += own * point.measured;
                for column in 0..N {
                    normal[row][column] += own * point.parts[column] / sizes[column];
                }
            }
        }
        let inverse = inverse(normal)?;
        let mut values = [0.0; N];
        for row in 0..N {
            let sum: f64 = (0..N).map(|ix| inverse[row][ix] * right[ix]).sum();
            values[row] = sum / sizes[row];
        }
        let fit = Self {
            values,
            errors: [0.0; N],
        };
        let squares = points.iter().map(|point| {
            let off = point.measured - fit.at(point.parts);
            point.weight * off * off
        });
        let freedom = (points.len() - N).max(1);
        let variance = squares.sum::<f64>() / count(freedom);
        let mut errors = [0.0; N];
        for row in 0..N {
            errors[row] = (variance * inverse[row][row].max(0.0)).sqrt() / sizes[row];
        }
        Some(Self { errors, ..fit })
    }

    pub(super) fn at(&self, parts: [f64; N]) -> f64 {
        self.values
            .iter()
            .zip(parts)
            .map(|(value, part)| value * part)
            .sum()
    }
}

/// By Gauss and Jordan, with the largest of each column; `None` where columns are sums of others.
fn inverse<const N: usize>(mut left: [[f64; N]; N]) -> Option<[[f64; N]; N]> {
    let mut right = [[0.0; N]; N];
    for (ix, row) in right.iter_mut().enumerate() {
        row[ix] = 1.0;
    }
    for column in 0..N {
        let largest = (column..N).max_by(|one, other| {
            left[*one][column]
                .abs()
                .total_cmp(&left[*other][column].abs())
        })?;
        left.swap(column, largest);
        right.swap(column, largest);
        let pivot = left[column][column];
        if pivot.abs() < DISTINCT {
            return None;
        }
        for ix in 0..N {
            left[column][ix] /= pivot;
            right[column][ix] /= pivot;
        }
        for row in 0..N {
            let share = left[row][column];
            if row != column {
                for ix in 0..N {
                    left[row][ix] -= share * left[column][ix];
                    right[row][ix] -= share * right[column][ix];
                }
            }
        }
    }
    Some(right)
}

/// As a number that is divided by.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
pub(super) const fn count(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point<const N: usize>(parts: [f64; N], measured: f64) -> Point<N> {
        Point {
            parts,
            measured,
            weight: 1.0,
        }
    }

    #[test]
    fn a_line_is_found_and_its_errors_are_those_of_the_textbook() {
        let line = [(1.0, 5.1), (2.0, 6.9), (3.0, 9.1), (4.0, 10.9)];
        let points = line.map(|(x, y)| point([1.0, x], y));
        let fit = Fit::of(&points).unwrap();
        let close = |one: f64, other: f64| assert!((one - other).abs() < 1e-9, "{one} {other}");
        close(fit.values[0], 3.1);
        close(fit.values[1], 1.96);
        // Residuals .04, -.12, .12, -.04: their squares' sum .032 over 2; over the sum of squares 5.
        close(fit.errors[1] * fit.errors[1], 0.016 / 5.0);
        close(fit.errors[0] * fit.errors[0], 0.016 * (0.25 + 6.25 / 5.0));
    }

    #[test]
    fn columns_that_say_the_same_are_told_apart_by_nobody() {
        let points = [1.0, 2.0, 3.0].map(|x| point([x, 3.0 * x], x));
        assert_eq!(Fit::of(&points), None);
        assert_eq!(Fit::of(&points[..1]), None);
        assert_eq!(Fit::of(&[point([0.0], 1.0)]), None);
    }

    #[test]
    fn what_counts_more_is_met_more_closely() {
        let mut points = [point([1.0], 1.0), point([1.0], 2.0)];
        points[1].weight = 3.0;
        assert!((Fit::of(&points).unwrap().values[0] - 1.75).abs() < 1e-12);
    }
}
