//! Which experts each row takes, and which rows each expert gets.

use std::ops::Range;

use super::Rows;

/// How a row's experts are weighed.
#[derive(Clone, Debug, PartialEq)]
pub enum Weighing {
    /// By their shares in a softmax over all.
    OfAll,
    /// By a softmax over those chosen.
    OfChosen,
    /// The same, each times its expert's own number.
    OfChosenScaled(Vec<f32>),
}

/// The places of all rows' choices, expert after expert, rows in order in each.
#[derive(Debug)]
pub(super) struct Choice {
    chosen: usize,
    /// Row after row, the best first.
    taken: Vec<Taken>,
    /// By place.
    rows: Vec<usize>,
    /// Where the places of each expert begin; one more for the end.
    starts: Vec<usize>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Taken {
    pub(super) expert: usize,
    pub(super) share: f32,
    pub(super) place: usize,
}

impl Choice {
    /// # Panics
    /// There are fewer experts than a row chooses.
    pub(super) fn new(scores: &Rows<'_>, chosen: usize, weighing: &Weighing) -> Self {
        let experts = scores.width();
        assert!(chosen <= experts, "a row takes no expert twice");
        let mut taken = Vec::with_capacity(scores.count() * chosen);
        let mut best = Vec::with_capacity(chosen + 1);
        for row in 0..scores.count() {
            choose(scores.row(row), chosen, &mut best);
            weigh(scores.row(row), &best, weighing, &mut taken);
        }
        let mut starts = vec![0; experts + 1];
        for taken in &taken {
            starts[taken.expert + 1] += 1;
        }
        for expert in 0..experts {
            starts[expert + 1] += starts[expert];
        }
        let mut next = starts.clone();
        let mut rows = vec![0; taken.len()];
        for (ix, taken) in taken.iter_mut().enumerate() {
            taken.place = next[taken.expert];
            next[taken.expert] += 1;
            rows[taken.place] = ix / chosen;
        }
        Self {
            chosen,
            taken,
            rows,
            starts,
        }
    }

    pub(super) fn places_of(&self, expert: usize) -> Range<usize> {
        self.starts[expert]..self.starts[expert + 1]
    }

    pub(super) fn rows_at(&self, places: Range<usize>) -> &[usize] {
        &self.rows[places]
    }

    pub(super) fn taken_by(&self, row: usize) -> &[Taken] {
        &self.taken[row * self.chosen..][..self.chosen]
    }
}

/// The highest scores, highest first; of equal ones the first.
fn choose(scores: &[f32], chosen: usize, best: &mut Vec<usize>) {
    best.clear();
    for (expert, score) in scores.iter().enumerate() {
        let place = best
            .iter()
            .rposition(|better| scores[*better].total_cmp(score).is_ge());
        let place = place.map_or(0, |better| better + 1);
        if place < chosen {
            best.insert(place, expert);
            best.truncate(chosen);
        }
    }
}

fn weigh(scores: &[f32], best: &[usize], weighing: &Weighing, taken: &mut Vec<Taken>) {
    let Some(highest) = best.first().map(|best| scores[*best]) else {
        return;
    };
    let power = |score: f32| (score - highest).exp();
    let sum: f32 = match weighing {
        Weighing::OfAll => scores.iter().copied().map(power).sum(),
        Weighing::OfChosen | Weighing::OfChosenScaled(_) => {
            best.iter().map(|expert| power(scores[*expert])).sum()
        }
    };
    taken.extend(best.iter().map(|expert| {
        let share = power(scores[*expert]) / sum;
        Taken {
            expert: *expert,
            share: match weighing {
                Weighing::OfAll | Weighing::OfChosen => share,
                Weighing::OfChosenScaled(scales) => share * scales[*expert],
            },
            place: 0,
        }
    }));
}
