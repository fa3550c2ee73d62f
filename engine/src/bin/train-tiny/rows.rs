//! Batches of token rows, drawn ahead on a thread of their own. Every other row is conversations
//! packed end to end; the rest are bare sums, three times as many to a row, since adding takes the
//! most practice.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

use crate::corpus::{Corpus, Reach, sum};
use crate::dice::Dice;
use crate::vocabulary::Vocabulary;

pub(crate) const SHORT_ROW: usize = 80;
pub(crate) const LONG_ROW: usize = 384;
/// Every so many steps the rows are long, so that long prompts are nothing new.
const LONG_ROWS_EVERY: u64 = 10;
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
    [(); LANES].map(|()| packed(corpus, vocabulary, &mut dice, reach, rows, length))
}

fn packed(
    corpus: &Corpus,
    vocabulary: &Vocabulary,
    dice: &mut Dice,
    reach: Reach,
    rows: usize,
    length: usize,
) -> Batch {
    let mut batch = Batch {
        rows: i32::try_from(rows).expect("a batch is small"),
        length: i32::try_from(length).expect("a row is short"),
        tokens: Vec::with_capacity(rows * length),
        places: Vec::new(),
        targets: Vec::new(),
    };
    for row in 0..rows {
        let (mut ids, mut is_said) = (Vec::new(), Vec::new());
        let is_drill = row % 2 == 0;
        while ids.len() < length + 1 {
            let tokens = if is_drill {
                vocabulary.drill(sum(dice))
            } else {
                vocabulary.conversation(&corpus.conversation(dice, reach))
            };
            ids.extend(tokens.ids);
            is_said.extend(tokens.is_said);
        }
        for next in (1..=length).filter(|&next| is_said[next]) {
            let place = batch.tokens.len() + next - 1;
            batch
                .places
                .push(u32::try_from(place).expect("a batch is small"));
            batch.targets.push(ids[next]);
        }
        batch.tokens.extend_from_slice(&ids[..length]);
    }
    batch
}
