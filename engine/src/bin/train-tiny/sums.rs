//! Small sums: which exist, which are held back from training, and what the right answer is.
//! The trainer and the engine's tests share this file, so both mean the same sums.

/// The largest operand.
pub(crate) const OPERAND_MAX: u32 = 99;
/// One pair of operands in so many is never trained on.
const HELD_BACK_ONE_IN: u64 = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Minus,
    Plus,
}

/// A sum of two numbers, or their difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sum {
    pub(crate) left: u32,
    pub(crate) operation: Operation,
    pub(crate) right: u32,
}

impl Sum {
    fn result(self) -> i64 {
        match self.operation {
            Operation::Minus => i64::from(self.left) - i64::from(self.right),
            Operation::Plus => i64::from(self.left) + i64::from(self.right),
        }
    }

    const fn sign(self) -> char {
        match self.operation {
            Operation::Minus => '-',
            Operation::Plus => '+',
        }
    }

    /// The plainest way to ask for it.
    pub(crate) fn question(self) -> String {
        format!("What is {} {} {}?", self.left, self.sign(), self.right)
    }

    /// The sentence that answers it.
    pub(crate) fn answer(self) -> String {
        format!(
            "{} {} {} = {}.",
            self.left,
            self.sign(),
            self.right,
            self.result()
        )
    }

    /// A pair is held back in either order and under both operations at once: otherwise 17 + 25
    /// would be known from 25 + 17.
    pub(crate) fn is_held_back(self) -> bool {
        let low = u64::from(self.left.min(self.right));
        let high = u64::from(self.left.max(self.right));
        mix(low << 32 | high).is_multiple_of(HELD_BACK_ONE_IN)
    }
}

/// Every held-back sum with a result that is not negative, in the order of a fixed shuffle, so that any beginning of it is a fair
/// sample.
pub(crate) fn held_back() -> Vec<Sum> {
    let mut sums: Vec<Sum> = (0..=OPERAND_MAX)
        .flat_map(|left| (0..=OPERAND_MAX).map(move |right| (left, right)))
        .flat_map(|(left, right)| {
            [Operation::Plus, Operation::Minus].map(|operation| Sum {
                left,
                operation,
                right,
            })
        })
        .filter(|sum| sum.is_held_back() && sum.result() >= 0)
        .collect();
    sums.sort_by_key(|sum| {
        let key = u64::from(sum.left) << 32 | u64::from(sum.right) << 16 | sum.sign() as u64;
        (mix(!key), key)
    });
    sums
}

/// The finaliser of SplitMix64: a fixed scramble of 64 bits.
const fn mix(key: u64) -> u64 {
    let mut z = key.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
