//! How many bits each component gets, so that the squared error is least for a budget.
//!
//! Errors are integers, so that sums are exact and every method and machine agrees: all errors without any bits together are 2^100.

use crate::error::{Error, Result};

/// Bits that a component can get at most.
pub const MAX_WIDTH: usize = 16;
/// Budget that the exact method takes at most: its table has as many columns.
const MAX_EXACT_BUDGET: usize = 1 << 20;
/// Cells of the exact method's table.
const MAX_EXACT_CELLS: usize = 1 << 28;
/// The sum of all errors without bits, as a power of two.
const TOTAL_LOG2: i32 = 100;
/// A bit that lowers the sum by a smaller share of it than this is not worth having: no f64 would see it.
const LEAST_GAIN_LOG2: i32 = TOTAL_LOG2 - 52;

/// How widths are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// One bit after the other, each where it lowers the error most. Exact where no bit gains more than the one before it.
    Greedy,
    /// The same along the lower convex hulls of the errors. Exact where the budget ends at a corner of a hull.
    Hull,
    /// A table over all components and budgets.
    Exact,
}

/// The error of each component for each width 0 … `max_bits`.
#[derive(Clone, Debug)]
pub struct Distortion {
    errors: Vec<u128>,
    n_widths: usize,
    /// Cost of each width.
    costs: Vec<usize>,
}

impl Distortion {
    /// λ · 4^−b, for the variances λ.
    ///
    /// # Errors
    /// `Option` for a variance that is no finite number, or too many bits.
    pub fn of_variances(variances: &[f64], max_bits: usize) -> Result<Self> {
        let n_widths = check_width(max_bits)?;
        let curves = variances
            .iter()
            .flat_map(|&variance| (0..n_widths).map(move |b| (variance.max(0.0)) * 0.25f64.powi(b as i32)));
        if variances.iter().any(|v| !v.is_finite()) {
            return Err(Error::option("a variance is not a finite number"));
        }
        let mut made = Self::scaled(curves.collect(), n_widths);
        for curve in made.errors.chunks_exact_mut(n_widths) {
            if let Some(b) = curve.windows(2).position(|pair| pair[0] - pair[1] < 1 << LEAST_GAIN_LOG2) {
                let last = curve[b];
                curve[b..].fill(last);
            }
        }
        Ok(made)
    }

    /// Errors that were measured: `[components, max_bits + 1]`.
    ///
    /// # Errors
    /// `Option` for an error that is negative or no finite number, or too many bits.
    pub fn measured(errors: &[f64], max_bits: usize) -> Result<Self> {
        let n_widths = check_width(max_bits)?;
        if !errors.len().is_multiple_of(n_widths) {
            return Err(Error::option(format!("{} errors are no rows of {n_widths}", errors.len())));
        }
        if errors.iter().any(|e| !e.is_finite() || *e < 0.0) {
            return Err(Error::option("an error is negative, or not a finite number"));
        }
        Ok(Self::scaled(errors.to_vec(), n_widths))
    }

    /// The same with what each width costs, instead of as many units as bits.
    ///
    /// # Errors
    /// `Option` unless there is a cost for each width, rising from 0.
    pub fn with_costs(mut self, costs: &[usize]) -> Result<Self> {
        if costs.len() != self.n_widths || costs[0] != 0 || costs.windows(2).any(|pair| pair[0] >= pair[1]) {
            return Err(Error::option("costs must rise from 0, one for each width"));
        }
        self.costs = costs.to_vec();
        Ok(self)
    }

    fn scaled(errors: Vec<f64>, n_widths: usize) -> Self {
        let largest = errors.iter().copied().fold(0.0, f64::max);
        // Divided by the largest first, so that the sum cannot overflow.
        let total: f64 = errors.chunks_exact(n_widths).map(|curve| curve[0] / largest).sum();
        let scale = 2f64.powi(TOTAL_LOG2) / total.max(f64::MIN_POSITIVE);
        let errors: Vec<u128> = errors
            .into_iter()
            .map(|e| if largest > 0.0 { (e / largest * scale) as u128 } else { 0 })
            .collect();
        Self {
            errors,
            n_widths,
            costs: (0..n_widths).collect(),
        }
    }

    fn n_components(&self) -> usize {
        self.errors.len() / self.n_widths
    }

    fn curve(&self, component: usize) -> &[u128] {
        &self.errors[component * self.n_widths..][..self.n_widths]
    }

    fn sum(&self, widths: &[u8]) -> u128 {
        widths.iter().enumerate().map(|(i, &b)| self.curve(i)[b as usize]).sum()
    }

    /// Widths whose costs sum to no more than `budget`. Ties go to the lower width, then to the earlier component.
    ///
    /// # Errors
    /// `Option` for a table that is too large, or the greedy method with costs of its own.
    pub fn allocate(&self, budget: usize, method: Method) -> Result<Vec<u8>> {
        match method {
            Method::Greedy if self.costs.iter().enumerate().any(|(b, &cost)| b != cost) => {
                Err(Error::option("the greedy method is for widths that cost their bits"))
            }
            Method::Greedy => Ok(self.greedy(budget)),
            Method::Hull => Ok(self.hull(budget)),
            Method::Exact => self.exact(budget),
        }
    }

    fn greedy(&self, budget: usize) -> Vec<u8> {
        let unit: Vec<Vec<usize>> = (0..self.n_components()).map(|_| (0..self.n_widths).collect()).collect();
        self.along(&unit, budget)
    }

    fn hull(&self, budget: usize) -> Vec<u8> {
        let hulls: Vec<Vec<usize>> = (0..self.n_components()).map(|i| self.corners(i)).collect();
        let mut widths = self.along(&hulls, budget);
        if self.costs.iter().enumerate().all(|(b, &cost)| b == cost) {
            let greedy = self.greedy(budget);
            if self.sum(&greedy) < self.sum(&widths) {
                widths = greedy;
            }
        }
        // A width that is worse than a smaller one is no use.
        for (i, width) in widths.iter_mut().enumerate() {
            let curve = self.curve(i);
            *width = (0..=*width).min_by_key(|&b| (curve[b as usize], b)).unwrap_or(0);
        }
        widths
    }

    /// The widths at the corners of a component's lower convex hull, from 0 on, as far as errors fall.
    fn corners(&self, component: usize) -> Vec<usize> {
        let curve = self.curve(component);
        let mut corners = vec![0usize];
        loop {
            let from = corners[corners.len() - 1];
            // The steepest descent; of equal ones the shortest.
            let next = (from + 1..self.n_widths).filter(|&b| curve[b] < curve[from]).max_by(|&a, &b| {
                let (gain_a, gain_b) = (curve[from] - curve[a], curve[from] - curve[b]);
                let (cost_a, cost_b) = (self.costs[a] - self.costs[from], self.costs[b] - self.costs[from]);
                compare_slopes(gain_a, cost_a, gain_b, cost_b).then(b.cmp(&a))
            });
            match next {
                Some(b) => corners.push(b),
                None => return corners,
            }
        }
    }

    /// The steps of all components with the largest gain for their cost, as far as the budget goes.
    fn along(&self, steps: &[Vec<usize>], budget: usize) -> Vec<u8> {
        let mut at = vec![0usize; steps.len()];
        let mut left = budget;
        let mut heap: std::collections::BinaryHeap<Step> = (0..steps.len()).filter_map(|i| self.step(i, steps, 0)).collect();
        while let Some(step) = heap.pop() {
            if step.cost > left {
                continue;
            }
            left -= step.cost;
            at[step.component] += 1;
            heap.extend(self.step(step.component, steps, at[step.component]));
        }
        at.iter().zip(steps).map(|(&at, widths)| widths[at] as u8).collect()
    }

    fn step(&self, component: usize, steps: &[Vec<usize>], at: usize) -> Option<Step> {
        let (&from, &to) = (steps[component].get(at)?, steps[component].get(at + 1)?);
        let curve = self.curve(component);
        let gain = curve[from].checked_sub(curve[to]).filter(|&gain| gain > 0)?;
        Some(Step {
            gain,
            cost: self.costs[to] - self.costs[from],
            width: to,
            component,
        })
    }

    fn exact(&self, budget: usize) -> Result<Vec<u8>> {
        let n = self.n_components();
        let budget = budget.min(n.saturating_mul(*self.costs.last().expect("there is a width")));
        if budget > MAX_EXACT_BUDGET || n.saturating_mul(budget + 1) > MAX_EXACT_CELLS {
            return Err(Error::option("the exact method would need too large a table"));
        }
        let mut best = vec![0u128; budget + 1];
        let mut chosen = vec![0u8; n * (budget + 1)];
        for i in 0..n {
            let curve = self.curve(i);
            let before = best.clone();
            for used in 0..=budget {
                let choices = (0..self.n_widths).filter(|&b| self.costs[b] <= used);
                let b = choices.min_by_key(|&b| before[used - self.costs[b]] + curve[b]).unwrap_or(0);
                best[used] = before[used - self.costs[b]] + curve[b];
                chosen[i * (budget + 1) + used] = b as u8;
            }
        }
        let mut used = (0..=budget).min_by_key(|&used| best[used]).unwrap_or(0);
        let mut widths = vec![0u8; n];
        for i in (0..n).rev() {
            widths[i] = chosen[i * (budget + 1) + used];
            used -= self.costs[widths[i] as usize];
        }
        Ok(widths)
    }
}

fn check_width(max_bits: usize) -> Result<usize> {
    if max_bits > MAX_WIDTH {
        return Err(Error::option(format!("{max_bits} bits are more than {MAX_WIDTH}")));
    }
    Ok(max_bits + 1)
}

/// Gains per cost. Gains are below 2^101 and costs small, so that products fit once 16 bits of the gains are dropped where costs differ.
fn compare_slopes(gain_a: u128, cost_a: usize, gain_b: u128, cost_b: usize) -> std::cmp::Ordering {
    if cost_a == cost_b {
        return gain_a.cmp(&gain_b);
    }
    ((gain_a >> 16) * cost_b as u128).cmp(&((gain_b >> 16) * cost_a as u128))
}

#[derive(PartialEq, Eq)]
struct Step {
    gain: u128,
    cost: usize,
    width: usize,
    component: usize,
}

impl Ord for Step {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        compare_slopes(self.gain, self.cost, other.gain, other.cost)
            .then(other.width.cmp(&self.width))
            .then(other.component.cmp(&self.component))
    }
}

impl PartialOrd for Step {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn allocate(variances: &[f64], budget: usize, max_bits: usize, method: Method) -> Vec<u8> {
        let distortion = Distortion::of_variances(variances, max_bits).unwrap();
        distortion.allocate(budget, method).unwrap()
    }

    fn bits(widths: &[u8]) -> usize {
        widths.iter().map(|&b| b as usize).sum()
    }

    #[test]
    fn nothing_is_spent_where_nothing_is_gained() {
        for method in [Method::Greedy, Method::Hull, Method::Exact] {
            assert_eq!(allocate(&[0.0; 4], 10, 16, method), [0; 4]);
            assert_eq!(allocate(&[1.0, 1e-30, 1e-30], 12, 8, method), [8, 0, 0]);
            assert_eq!(allocate(&[1.0, -1e-9, 0.0], 12, 16, method), [12, 0, 0]);
            assert_eq!(allocate(&[1.0, 2.0], 0, 16, method), [0, 0]);
            assert_eq!(allocate(&[1.0, 2.0], 100, 4, method), [4, 4]);
            assert_eq!(allocate(&[], 7, 16, method), [0u8; 0]);
        }
        assert!(Distortion::of_variances(&[f64::NAN], 16).is_err());
        assert!(Distortion::of_variances(&[f64::INFINITY], 16).is_err());
    }

    #[test]
    fn a_tie_goes_to_the_earlier_component() {
        assert_eq!(allocate(&[1.0, 1.0, 1.0], 4, 16, Method::Greedy), [2, 1, 1]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(600))]

        #[test]
        fn greedy_is_exact_for_variances(exponents in prop::collection::vec(-60f64..20.0, 1..24), budget in 0usize..120, max_bits in 1usize..9) {
            let variances: Vec<f64> = exponents.iter().map(|e| e.exp2()).collect();
            let distortion = Distortion::of_variances(&variances, max_bits).unwrap();
            let (greedy, exact) = (distortion.allocate(budget, Method::Greedy).unwrap(), distortion.allocate(budget, Method::Exact).unwrap());
            prop_assert_eq!(distortion.sum(&greedy), distortion.sum(&exact));
            prop_assert_eq!(bits(&greedy), bits(&exact));
            prop_assert!(bits(&greedy) <= budget);
        }

        #[test]
        fn the_hull_is_never_worse_than_single_bits(errors in prop::collection::vec(0f64..10.0, 6..60), budget in 0usize..40) {
            let errors = &errors[..errors.len() / 6 * 6];
            let distortion = Distortion::measured(errors, 5).unwrap();
            let hull = distortion.allocate(budget, Method::Hull).unwrap();
            let greedy = distortion.allocate(budget, Method::Greedy).unwrap();
            let exact = distortion.allocate(budget, Method::Exact).unwrap();
            prop_assert!(distortion.sum(&exact) <= distortion.sum(&hull) && distortion.sum(&hull) <= distortion.sum(&greedy));
            prop_assert!(bits(&hull) <= budget && bits(&exact) <= budget);
            for (i, &b) in hull.iter().enumerate() {
                prop_assert!(distortion.curve(i)[b as usize] <= distortion.curve(i)[0]);
            }
        }

        #[test]
        fn costs_of_widths_are_kept_to(errors in prop::collection::vec(0f64..10.0, 4..40), budget in 0usize..400) {
            let errors = &errors[..errors.len() / 4 * 4];
            let costs = [0, 34, 36, 40];
            let distortion = Distortion::measured(errors, 3).unwrap().with_costs(&costs).unwrap();
            let (hull, exact) = (distortion.allocate(budget, Method::Hull).unwrap(), distortion.allocate(budget, Method::Exact).unwrap());
            prop_assert!(distortion.sum(&exact) <= distortion.sum(&hull));
            for widths in [hull, exact] {
                prop_assert!(widths.iter().map(|&b| costs[b as usize]).sum::<usize>() <= budget);
            }
        }
    }
}
