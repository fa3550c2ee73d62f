//! Which machines have read the beginning of a prompt before, as far as their memory goes: those that
//! were sent it, until they were sent as much else as they hold.

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::Fleet;
use super::choose::Want;
use crate::digest::Mix;
use crate::ids::ModelIx;
use crate::memo::Memo;
use crate::prefix::{BLOCK_TOKENS, Prefix};

/// Names that are remembered, each for each machine that has read it.
const HELD_MAX: u32 = 131_072;
/// Machines that one request finds.
pub(super) const FOUND_MAX: usize = 8;
/// Blocks that a machine holds which does not say how much.
const BLOCKS_UNREPORTED: u64 = 128;

/// A machine has read what the name stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Holder {
    /// Connections have numbers of their own; places of offers are used again.
    conn: u64,
    offer: u32,
    /// What it had been sent by then, in blocks.
    sent_blocks: u64,
}

impl Holder {
    const fn is(&self, offer: u32, conn: u64) -> bool {
        self.offer == offer && self.conn == conn
    }
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Prefixes {
    held: Memo<Holder>,
}

/// An offer whose machine has read so much of a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) offer: u32,
    pub(super) blocks: u16,
}

/// The offers whose machines have read most of a prompt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Readers(SmallVec<[Found; FOUND_MAX]>);

impl Readers {
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    pub(super) fn at(&self, nth: usize) -> Found {
        self.0[nth]
    }

    /// The tokens of the prompt that an offer's machine need not read.
    pub(super) fn cached_tokens(&self, offer: u32, want: &Want<'_>) -> u32 {
        self.blocks(offer)
            .map_or(0, |blocks| want.tokens_of(blocks))
    }

    /// The blocks that it has read.
    pub(super) fn blocks(&self, offer: u32) -> Option<u16> {
        let found = self.0.iter().find(|found| found.offer == offer);
        found.map(|found| found.blocks)
    }
}

impl Prefixes {
    pub(super) const fn new() -> Self {
        Self {
            held: Memo::new(HELD_MAX),
        }
    }
}

impl Fleet {
    /// A request goes to an offer: its machine will have read the prompt.
    pub(crate) fn note_prefix(&mut self, ix: u32, prefix: &Prefix, fresh_tokens: u32, output: u32) {
        let offer = self.offers.at_mut(ix);
        let tokens = u64::from(fresh_tokens) + u64::from(output);
        offer.sent_blocks += tokens.div_ceil(BLOCK_TOKENS.into());
        let provider = self.providers.at(offer.provider);
        let holder = Holder {
            conn: provider.conn.0,
            offer: ix,
            sent_blocks: offer.sent_blocks,
        };
        for named in prefix.named() {
            let name = of_model(named.name, offer.model);
            let is_same = |held: &Holder| held.is(holder.offer, holder.conn);
            self.prefixes.held.put(name, holder, is_same);
        }
    }

    /// It has shown nothing of an answer: nobody knows how far it has read, and who fails must not draw the
    /// same conversation again and again.
    pub(crate) fn forget_prefix(&mut self, ix: u32, prefix: &Prefix) {
        let offer = self.offers.at(ix);
        let conn = self.providers.at(offer.provider).conn.0;
        for named in prefix.named() {
            let name = of_model(named.name, offer.model);
            self.prefixes.held.forget(name, |held| held.is(ix, conn));
        }
    }

    /// The offers whose machines have read most of the prompt, each with how much.
    pub(super) fn readers(&self, want: &Want<'_>) -> Readers {
        let mut found: SmallVec<[Found; FOUND_MAX]> = SmallVec::new();
        for named in want.prefix.named().rev() {
            let name = of_model(named.name, want.model);
            for holder in self.prefixes.held.of(name) {
                let Some(offer) = self.offer_of_holder(holder) else {
                    continue;
                };
                if found.iter().all(|it| it.offer != offer) {
                    let blocks = named.blocks;
                    found.push(Found { offer, blocks });
                }
                if found.len() == FOUND_MAX {
                    return Readers(found);
                }
            }
        }
        Readers(found)
    }

    /// The tokens of a prompt that an offer's machine need not read.
    pub(crate) fn cached_tokens(&self, ix: u32, want: &Want<'_>) -> u32 {
        self.readers(want).cached_tokens(ix, want)
    }

    /// The offer of the machine that holds it, as long as it is in its memory.
    fn offer_of_holder(&self, holder: &Holder) -> Option<u32> {
        let offer = self.offers.get_at(holder.offer)?;
        if self.providers.at(offer.provider).conn.0 != holder.conn {
            return None;
        }
        let holds_blocks = match offer.report.capacity_tokens() {
            Some(tokens) => tokens / u64::from(BLOCK_TOKENS),
            None => BLOCKS_UNREPORTED,
        };
        let since = offer.sent_blocks.checked_sub(holder.sent_blocks)?;
        let is_held = since <= holds_blocks && offer.report.state.is_resident();
        is_held.then_some(holder.offer)
    }
}

/// A prefix of a model: another's memory of the same text is of no use.
fn of_model(name: u32, model: ModelIx) -> u64 {
    Mix::of(&(name, model)) as u64
}
