//! Words to spell and to reverse: the project's list, and made-up ones so that spelling is learnt
//! as a rule and not by heart.

use crate::dice::Dice;

/// One listed word in so many is never trained on.
const HELD_BACK_ONE_IN: u32 = 20;
const MADE_UP_PERCENT: u32 = 35;
const SYLLABLES_MAX: u32 = 3;
const SYLLABLES_SHORT_MAX: u32 = 2;
const STARTS: [&str; 32] = [
    "b", "c", "d", "f", "g", "h", "j", "k", "l", "m", "n", "p", "r", "s", "t", "v", "w", "y", "z",
    "br", "ch", "cl", "dr", "fl", "gr", "pl", "qu", "sh", "sp", "st", "th", "tr",
];
const VOWELS: [&str; 14] = [
    "a", "e", "i", "o", "u", "a", "e", "i", "o", "ea", "ai", "oo", "ou", "ie",
];
const ENDS: [&str; 24] = [
    "", "", "", "", "", "b", "ck", "d", "f", "g", "l", "ll", "m", "n", "nd", "ng", "p", "r", "s",
    "ss", "st", "t", "x", "y",
];

pub(crate) struct Words {
    known: Vec<&'static str>,
    held_back: Vec<&'static str>,
}

impl Words {
    pub(crate) fn load() -> Self {
        let (held_back, known) = include_str!("words.txt")
            .split_whitespace()
            .partition(|word| is_held_back(word));
        Self { known, held_back }
    }

    pub(crate) fn known(&self) -> &[&'static str] {
        &self.known
    }

    pub(crate) fn held_back(&self) -> &[&'static str] {
        &self.held_back
    }

    /// A listed word of the training half.
    pub(crate) fn listed(&self, dice: &mut Dice) -> &'static str {
        dice.pick(&self.known)
    }

    /// A word to spell: mostly a listed one, sometimes made up.
    pub(crate) fn any(&self, dice: &mut Dice) -> String {
        self.drawn(dice, SYLLABLES_MAX)
    }

    /// The same, with made-up words about as long as listed ones.
    pub(crate) fn short(&self, dice: &mut Dice) -> String {
        self.drawn(dice, SYLLABLES_SHORT_MAX)
    }

    fn drawn(&self, dice: &mut Dice, syllable_count_max: u32) -> String {
        loop {
            let word = if dice.chance(MADE_UP_PERCENT) {
                made_up(dice, syllable_count_max)
            } else {
                self.listed(dice).to_owned()
            };
            if !is_held_back(&word) {
                return word;
            }
        }
    }
}

pub(crate) fn spelt(word: &str) -> String {
    let letters: Vec<String> = word.chars().map(String::from).collect();
    letters.join("-")
}

pub(crate) fn reversed(word: &str) -> String {
    word.chars().rev().collect()
}

/// The answer shows its work, since a model of this size cannot turn a word around in one step.
pub(crate) fn reversing_answer(word: &str) -> String {
    let back = reversed(word);
    format!("{} backwards is {}: {back}.", spelt(word), spelt(&back))
}

fn made_up(dice: &mut Dice, syllable_count_max: u32) -> String {
    let mut word = String::new();
    for _ in 0..dice.between(1, syllable_count_max) {
        word.push_str(dice.pick(&STARTS));
        word.push_str(dice.pick(&VOWELS));
        word.push_str(dice.pick(&ENDS));
    }
    word
}

fn is_held_back(word: &str) -> bool {
    let key = word.bytes().fold(0u64, |key, byte| {
        key.wrapping_mul(0x100_0000_01b3) ^ u64::from(byte)
    });
    Dice::new(key).below(HELD_BACK_ONE_IN) == 0
}
