//! Batches of token rows, drawn ahead on a thread of their own. A row is conversations packed end
//! to end, or practice: bare sums, of which three times as many fit, and in the second stage words.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

use crate::corpus::{Corpus, Reach, sum};
use crate::dice::Dice;
use crate::vocabulary::{Tokens, Vocabulary};

pub(crate) const SHORT_ROW: usize = 80;
pub(crate) const LONG_ROW: usize = 384;
/// Every so many steps the rows are long, so that long prompts are nothing new.
const LONG_ROWS_EVERY: u64 = 10;
/// Where the second stage begins: from here on half of all rows practise words. By then 99 of 100
/// held-back sums are right and words are not.
pub(crate) const WORDS_FROM_STEP: u64 = 800;
/// Steps drawn ahead: enough that the tensors never wait.
const AHEAD: usize = 4;
/// Parts of a step that are computed side by side: MLX runs each of its CPU streams on one thread.
pub(crate) const LANES: usize = 2;

/// `rows` times `length` tokens, and where in them the model is to learn what comes next.
pub(crate) struct Batch {
    pub(crate) rows: i32,
    pub(crate) length: i32,
    pub(crate) tokens: Vec<u32>,
    /// Indices into `tokens` after which the assistant speaks.
    pub(crate) places: Vec<u32>,
    /// What it says there.
    pub(crate) targets: Vec<u32>,
}

/// Draws the batches of steps `first..end` ahead. A batch is a function of the seed and its step,
/// so a resumed training sees what an uninterrupted one would have seen.
pub(crate) fn drawn_ahead(
    corpus: Arc<Corpus>,
    vocabulary: Arc<Vocabulary>,
    seed: u64,
    steps: std::ops::Range<u64>,
    batch_tokens: usize,
) -> Receiver<[Batch; LANES]> {
    let (sender, receiver) = sync_channel(AHEAD);
    std::thread::spawn(move || {
        for step in steps {
            let batches = drawn(&corpus, &vocabulary, seed, step, batch_tokens);
            if sender.send(batches).is_err() {
                return; // the trainer has stopped
            }
        }
    });
    receiver
}

fn drawn(
    corpus: &Corpus,
    vocabulary: &Vocabulary,
    seed: u64,
    step: u64,
    batch_tokens: usize,
) -> [Batch; LANES] {
    let mut dice = Dice::new(Dice::new(seed ^ step.rotate_left(32)).roll());
    let (length, reach) = if step % LONG_ROWS_EVERY == LONG_ROWS_EVERY - 1 {
        (LONG_ROW, Reach::Long)
    } else {
        (SHORT_ROW, Reach::Short)
    };
    let rows = batch_tokens / length / LANES;
    let kinds = if step < WORDS_FROM_STEP {
        [Kind::Sums, Kind::Conversations].as_slice()
    } else {
        &[Kind::Sums, Kind::Words, Kind::Conversations, Kind::Words]
    };
    [(); LANES].map(|()| {
        let mut batch = Batch::with_capacity(rows, length);
        for row in 0..rows {
            let mut pack = |piece: &mut dyn FnMut() -> Tokens| batch.pack(length, piece);
            match kinds[row % kinds.len()] {
                Kind::Conversations => {
                    pack(&mut || vocabulary.conversation(&corpus.conversation(&mut dice, reach)));
                }
                Kind::Sums => pack(&mut || vocabulary.drill(sum(&mut dice))),
                Kind::Words => {
                    pack(&mut || vocabulary.conversation(&corpus.word_practice(&mut dice)));
                }
            }
        }
        batch
    })
}

/// What a row is made of.
#[derive(Clone, Copy)]
enum Kind {
    Conversations,
    Sums,
    Words,
}

impl Batch {
    fn with_capacity(rows: usize, length: usize) -> Self {
        Self {
            rows: i32::try_from(rows).expect("a batch is small"),
            length: i32::try_from(length).expect("a row is short"),
            tokens: Vec::with_capacity(rows * length),
            places: Vec::new(),
            targets: Vec::new(),
        }
    }

    /// Adds a row of pieces end to end; the last is cut where the row ends.
    fn pack(&mut self, length: usize, piece: &mut dyn FnMut() -> Tokens) {
        let (mut ids, mut is_said) = (Vec::new(), Vec::new());
        while ids.len() < length + 1 {
            let tokens = piece();
            ids.extend(tokens.ids);
            is_said.extend(tokens.is_said);
        }
        for next in (1..=length).filter(|&next| is_said[next]) {
            let place = self.tokens.len() + next - 1;
            self.places
                .push(u32::try_from(place).expect("a batch is small"));
            self.targets.push(ids[next]);
        }
        self.tokens.extend_from_slice(&ids[..length]);
    }
}
