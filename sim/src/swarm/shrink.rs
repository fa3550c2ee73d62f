//! The smallest world that still breaks the same law: parts, faults, requests and machines are left out
//! as long as it does.

use super::plan::{Only, Part, Plan};
use super::{Failure, Plant, Trial};
use crate::oracle::Violation;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shrunk {
    pub only: Only,
    pub failure: Failure,
    /// Worlds that were run.
    pub runs: u64,
}

/// A list of a plan.
#[derive(Clone, Copy)]
enum List {
    Asks,
    Faults,
    Machines,
}

struct Search<'a> {
    seed: u64,
    plant: Option<Plant>,
    best: Only,
    failure: Failure,
    runs: u64,
    look: &'a mut dyn FnMut(&Only),
}

/// `None`: that seed breaks no law. `look` sees each smaller world that is found.
pub fn shrink(seed: u64, plant: Option<Plant>, look: &mut dyn FnMut(&Only)) -> Option<Shrunk> {
    let whole = Trial {
        plant,
        ..Trial::of(seed)
    };
    let failure = *whole.run().err()?;
    let mut search = Search {
        seed,
        plant,
        best: Only::default(),
        failure,
        runs: 1,
        look,
    };
    loop {
        let before = search.best.clone();
        search.drop_parts();
        for list in [List::Faults, List::Asks, List::Machines] {
            search.drop_items(list);
        }
        if search.best == before {
            break;
        }
    }
    Some(Shrunk {
        only: search.best,
        failure: search.failure,
        runs: search.runs,
    })
}

impl Search<'_> {
    fn drop_parts(&mut self) {
        for part in Part::ALL {
            let mut less = self.best.clone();
            if less.without.insert(part) && self.changes(&less) {
                self.attempt(less);
            }
        }
    }

    /// Leaves out ever shorter runs of a list.
    fn drop_items(&mut self, list: List) {
        let mut run = self.items(list).len().max(1);
        loop {
            let mut from = 0;
            while from < self.items(list).len() {
                let mut items = self.items(list);
                items.drain(from..(from + run).min(items.len()));
                let mut less = self.best.clone();
                *list.of(&mut less) = Some(items);
                if !self.attempt(less) {
                    from += run;
                }
            }
            if run == 1 {
                return;
            }
            run = run.div_ceil(2);
        }
    }

    /// Whether a world would be another one.
    fn changes(&self, less: &Only) -> bool {
        self.plan(less) != self.plan(&self.best)
    }

    fn plan(&self, only: &Only) -> Plan {
        let mut plan = Plan::draw(self.seed);
        plan.keep(only);
        plan
    }

    fn items(&self, list: List) -> Vec<u32> {
        let mut only = self.best.clone();
        let plan = Plan::draw(self.seed);
        let count = match list {
            List::Asks => plan.asks.len(),
            List::Faults => plan.faults.len(),
            List::Machines => plan.machines.len(),
        };
        let all = 0..u32::try_from(count).expect("few");
        list.of(&mut only).take().unwrap_or_else(|| all.collect())
    }

    /// Takes the smaller world if it breaks the same law.
    fn attempt(&mut self, less: Only) -> bool {
        self.runs += 1;
        let trial = Trial {
            plant: self.plant,
            only: less.clone(),
            ..Trial::of(self.seed)
        };
        match trial.run() {
            Err(failure) if is_alike(&failure.violation, &self.failure.violation) => {
                self.failure = *failure;
                self.best = less;
                (self.look)(&self.best);
                true
            }
            Ok(_) | Err(_) => false,
        }
    }
}

impl List {
    const fn of(self, only: &mut Only) -> &mut Option<Vec<u32>> {
        match self {
            Self::Asks => &mut only.asks,
            Self::Faults => &mut only.faults,
            Self::Machines => &mut only.machines,
        }
    }
}

/// Words of a violation's text that are compared: what follows are lists as long as the world is large.
const WORDS_COMPARED: usize = 12;

/// Whether the same law is broken in the same way, whoever broke it.
fn is_alike(one: &Violation, other: &Violation) -> bool {
    one.law == other.law && gist(&one.what).eq(gist(&other.what))
}

fn gist(what: &str) -> impl Iterator<Item = String> {
    let words = what.split_whitespace().filter(|word| !is_id(word));
    let words = words.take(WORDS_COMPARED);
    words.map(|word| word.replace(|it: char| it.is_ascii_digit(), ""))
}

/// A request's id has its digits in five groups.
fn is_id(word: &str) -> bool {
    word.split('-').count() == 5
}
