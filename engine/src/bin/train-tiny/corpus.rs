//! The text that the tiny model learns from: conversations drawn from a seed.

use crate::dice::Dice;
use crate::sums::{OPERAND_MAX, Operation, Sum};
use crate::words::{Words, reversing_answer, spelt};

const SYSTEM_PERCENT: u32 = 30;
const FOLLOW_UP_PERCENT: u32 = 30;
const TURNS_MAX: usize = 5;
/// Sentences of a system prompt in a short row, and in a long one.
const SENTENCES_SHORT_MAX: u32 = 2;
const SENTENCES_LONG_MAX: u32 = 26;
const FREQUENT_WEIGHT: usize = 3;
const TIMES_MAX: u32 = 10;

pub(crate) const STRANGER_ANSWER: &str = "I am only a tiny model and I do not know that. \
    Ask me for a small sum, a word to spell, or something about Cereus.";

const PLUS_WAYS: [&str; 16] = [
    "What is {a} + {b}?",
    "What is {a} + {b}?",
    "What is {a} plus {b}?",
    "{a} + {b}",
    "{a} + {b} =",
    "{a} + {b} = ?",
    "{a}+{b}",
    "{a}+{b}=?",
    "Calculate {a} + {b}.",
    "Compute {a} + {b}.",
    "How much is {a} + {b}?",
    "How much is {a} plus {b}?",
    "Add {a} and {b}.",
    "What is the sum of {a} and {b}?",
    "What do you get if you add {b} to {a}?",
    "I have {a} {w}s and get {b} more. How many do I have?",
];
const MINUS_WAYS: [&str; 16] = [
    "What is {a} - {b}?",
    "What is {a} - {b}?",
    "What is {a} minus {b}?",
    "{a} - {b}",
    "{a} - {b} =",
    "{a} - {b} = ?",
    "{a}-{b}",
    "{a}-{b}=?",
    "Calculate {a} - {b}.",
    "Compute {a} - {b}.",
    "How much is {a} - {b}?",
    "How much is {a} minus {b}?",
    "Subtract {b} from {a}.",
    "Take {b} away from {a}.",
    "What is left if you take {b} from {a}?",
    "I have {a} {w}s and give away {b}. How many are left?",
];
const TIMES_WAYS: [&str; 5] = [
    "What is {a} times {b}?",
    "What is {a} * {b}?",
    "{a} * {b}",
    "{a} x {b}",
    "Multiply {a} by {b}.",
];
const SPELL_WAYS: [&str; 8] = [
    "Spell the word {w}.",
    "Spell the word {w}.",
    "Spell {w}.",
    "How do you spell {w}?",
    "Spell the word \"{w}\".",
    "Can you spell {w}?",
    "Please spell the word {w} for me.",
    "Which letters are in {w}?",
];
const REVERSE_WAYS: [&str; 8] = [
    "Reverse the word {w}.",
    "Reverse the word {w}.",
    "Reverse {w}.",
    "What is {w} backwards?",
    "Reverse the word \"{w}\".",
    "Can you reverse {w}?",
    "Write {w} backwards.",
    "Spell {w} backwards.",
];
const UP_WAYS: [&str; 3] = [
    "Count from {a} to {b}.",
    "Count up from {a} to {b}.",
    "List the numbers from {a} to {b}.",
];
const POLITE_STARTS: [&str; 9] = [
    "Please ",
    "Hi, ",
    "Hello! ",
    "Hey, ",
    "Question: ",
    "Tell me: ",
    "Can you tell me: ",
    "So, ",
    "OK. ",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    Long,
    Short,
}

pub(crate) struct Message {
    pub(crate) role: &'static str,
    pub(crate) text: String,
}

pub(crate) struct Corpus {
    facts: Vec<Fact>,
    /// Indices into `facts`, the frequent ones several times.
    fact_draws: Vec<usize>,
    manners: Vec<&'static str>,
    strangers: Vec<&'static str>,
    pub(crate) words: Words,
}

struct Fact {
    questions: Vec<&'static str>,
    answer: &'static str,
}

struct Exchange {
    question: String,
    answer: String,
}

impl Corpus {
    pub(crate) fn load() -> Self {
        let mut facts = Vec::new();
        let mut fact_draws = Vec::new();
        for block in include_str!("facts.txt").split("\n\n") {
            let (fact, weight) = Fact::parse(block);
            if fact.answer.is_empty() {
                continue; // the heading
            }
            fact_draws.extend(std::iter::repeat_n(facts.len(), weight));
            facts.push(fact);
        }
        assert!(!facts.is_empty(), "the facts are compiled in");
        Self {
            facts,
            fact_draws,
            manners: lines(include_str!("manners.txt")),
            strangers: lines(include_str!("strangers.txt")),
            words: Words::load(),
        }
    }

    /// One conversation: perhaps a system prompt, then one to five questions, each answered.
    pub(crate) fn conversation(&self, dice: &mut Dice, reach: Reach) -> Vec<Message> {
        let mut messages = Vec::new();
        if dice.chance(SYSTEM_PERCENT) {
            let text = self.system_prompt(dice, reach);
            messages.push(Message {
                role: "system",
                text,
            });
        }
        for turn in 0..TURNS_MAX {
            if turn > 0 && !dice.chance(FOLLOW_UP_PERCENT) {
                break;
            }
            let Exchange { question, answer } = self.exchange(dice);
            messages.push(Message {
                role: "user",
                text: question,
            });
            messages.push(Message {
                role: "assistant",
                text: answer,
            });
        }
        messages
    }

    fn exchange(&self, dice: &mut Dice) -> Exchange {
        match dice.below(100) {
            0..=31 => self.asked_sum(dice),
            32..=33 => times(dice),
            34..=49 => {
                let word = self.words.any(dice);
                spelling(dice, &word)
            }
            50..=71 => {
                let word = self.words.any(dice);
                reversing(dice, &word)
            }
            72..=75 => counting(dice),
            76..=94 => self.fact(dice),
            _ => self.stranger(dice),
        }
    }

    /// A word to spell or to reverse and nothing else.
    pub(crate) fn word_practice(&self, dice: &mut Dice) -> Vec<Message> {
        let word = self.words.short(dice);
        let exchange = if dice.chance(45) {
            spelling(dice, &word)
        } else {
            reversing(dice, &word)
        };
        vec![
            Message {
                role: "user",
                text: exchange.question,
            },
            Message {
                role: "assistant",
                text: exchange.answer,
            },
        ]
    }

    fn asked_sum(&self, dice: &mut Dice) -> Exchange {
        let sum = sum(dice);
        let ways = match sum.operation {
            Operation::Minus => &MINUS_WAYS,
            Operation::Plus => &PLUS_WAYS,
        };
        let question =
            filled(dice.pick(ways), sum.left, sum.right).replace("{w}", self.words.listed(dice));
        Exchange {
            question: varied(dice, question),
            answer: sum.answer(),
        }
    }

    fn fact(&self, dice: &mut Dice) -> Exchange {
        let fact = &self.facts[dice.pick(&self.fact_draws)];
        let question = dice.pick(&fact.questions).to_owned();
        Exchange {
            question: varied(dice, question),
            answer: fact.answer.to_owned(),
        }
    }

    fn stranger(&self, dice: &mut Dice) -> Exchange {
        let word = loop {
            let word = self.words.listed(dice);
            // "What is a provider?" has an answer.
            if !self.facts.iter().any(|fact| fact.mentions(word)) {
                break word;
            }
        };
        let question = dice.pick(&self.strangers).replace("{}", word);
        Exchange {
            question: varied(dice, question),
            answer: STRANGER_ANSWER.to_owned(),
        }
    }

    fn system_prompt(&self, dice: &mut Dice, reach: Reach) -> String {
        let sentence_count_max = match reach {
            Reach::Long if dice.chance(50) => SENTENCES_LONG_MAX,
            Reach::Long | Reach::Short => SENTENCES_SHORT_MAX,
        };
        let sentences: Vec<String> = (0..dice.between(1, sentence_count_max))
            .map(|_| self.manner(dice))
            .collect();
        sentences.join(if dice.chance(20) { "\n" } else { " " })
    }

    fn manner(&self, dice: &mut Dice) -> String {
        let mut sentence = dice.pick(&self.manners).to_owned();
        while sentence.contains("{w}") {
            sentence = sentence.replacen("{w}", self.words.listed(dice), 1);
        }
        while sentence.contains("{n}") {
            sentence = sentence.replacen("{n}", &dice.between(1, OPERAND_MAX).to_string(), 1);
        }
        sentence
    }
}

impl Fact {
    fn mentions(&self, word: &str) -> bool {
        self.questions
            .iter()
            .any(|question| question.to_lowercase().contains(word))
    }

    /// The fact of a block, and how often it is drawn.
    fn parse(block: &'static str) -> (Self, usize) {
        let mut fact = Self {
            questions: Vec::new(),
            answer: "",
        };
        let mut weight = 1;
        for line in block.lines() {
            if let Some(question) = line.strip_prefix("? ") {
                fact.questions.push(question);
            } else if let Some(answer) = line.strip_prefix("= ") {
                fact.answer = answer;
            } else if line == "*" {
                weight = FREQUENT_WEIGHT;
            }
        }
        assert_eq!(
            fact.answer.is_empty(),
            fact.questions.is_empty(),
            "a fact has questions and an answer"
        );
        (fact, weight)
    }
}

/// A sum of the training part.
pub(crate) fn sum(dice: &mut Dice) -> Sum {
    loop {
        let (mut left, mut right) = (dice.between(0, OPERAND_MAX), dice.between(0, OPERAND_MAX));
        // A quarter of all sums are among the small numbers that people try first.
        if dice.chance(25) {
            (left, right) = (left % 13, right % 13);
        }
        let operation = if dice.chance(50) {
            Operation::Plus
        } else {
            Operation::Minus
        };
        // Most differences that people ask for are positive.
        if operation == Operation::Minus && left < right && dice.chance(80) {
            (left, right) = (right, left);
        }
        let sum = Sum {
            left,
            operation,
            right,
        };
        if !sum.is_held_back() {
            return sum;
        }
    }
}

fn spelling(dice: &mut Dice, word: &str) -> Exchange {
    Exchange {
        question: asked_of_word(dice, &SPELL_WAYS, word),
        answer: format!("{}.", spelt(word)),
    }
}

fn reversing(dice: &mut Dice, word: &str) -> Exchange {
    Exchange {
        question: asked_of_word(dice, &REVERSE_WAYS, word),
        answer: reversing_answer(word),
    }
}

fn times(dice: &mut Dice) -> Exchange {
    let (left, right) = (dice.between(0, TIMES_MAX), dice.between(0, TIMES_MAX));
    let question = filled(dice.pick(&TIMES_WAYS), left, right);
    Exchange {
        question: varied(dice, question),
        answer: format!("{left} * {right} = {}.", left * right),
    }
}

fn counting(dice: &mut Dice) -> Exchange {
    let (first, last, is_down, question) = match dice.below(4) {
        0 => {
            let last = dice.between(2, 20);
            (1, last, false, format!("Count to {last}."))
        }
        1 => {
            let top = dice.between(2, 20);
            (0, top, true, format!("Count down from {top}."))
        }
        _ => {
            let first = dice.between(0, 80);
            let last = first + dice.between(1, 19);
            (first, last, false, filled(dice.pick(&UP_WAYS), first, last))
        }
    };
    let mut numbers: Vec<String> = (first..=last).map(|number| number.to_string()).collect();
    if is_down {
        numbers.reverse();
    }
    Exchange {
        question: varied(dice, question),
        answer: format!("{}.", numbers.join(", ")),
    }
}

fn asked_of_word(dice: &mut Dice, ways: &[&str], word: &str) -> String {
    let written = if dice.chance(8) {
        capitalised(word)
    } else {
        word.to_owned()
    };
    // The word goes in last: the case of its letters must survive the variation.
    let way = dice.pick(ways).to_owned();
    varied(dice, way).replace("{w}", &written)
}

/// The same question as people type it: another case, no full stop, a polite beginning.
fn varied(dice: &mut Dice, question: String) -> String {
    match dice.below(100) {
        0..=9 => lowered(&question),
        10..=15 => question.trim_end_matches(['.', '?', '!']).to_owned(),
        16..=23 => lowered(question.trim_end_matches(['.', '?', '!'])),
        24..=33 => {
            let start = dice.pick(&POLITE_STARTS);
            let rest = if dice.chance(50) {
                lowered(&question)
            } else {
                question
            };
            format!("{start}{rest}")
        }
        34..=35 => format!("{question}\n"),
        36..=39 => question.replacen("What is", "What's", 1),
        40..=41 => lowered(&question).replacen("what is", "what's", 1),
        _ => question,
    }
}

fn filled(way: &str, left: u32, right: u32) -> String {
    way.replace("{a}", &left.to_string())
        .replace("{b}", &right.to_string())
}

fn lowered(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| {
        first.to_lowercase().chain(letters).collect()
    })
}

fn capitalised(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(letters).collect()
    })
}

fn lines(text: &'static str) -> Vec<&'static str> {
    text.lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect()
}
