//! The journal of one life: recorded as the shell records it, torn when the process dies, and replayed
//! then.

use core::num::NonZeroU32;

use cereus_core::coordinator::{Coordinator, Mischief};
use cereus_core::effect::Effects;
use cereus_core::event::Event;
use cereus_core::journal::{Ending, Fault, Reader, Writer, replay};
use cereus_core::time::Tick;

use crate::oracle::{Violation, require};
use crate::stream::Stream;
use crate::swarm::marks::{Mark, Marks};

/// Few events, so that what is torn off is often less than what was between two checkpoints.
const CHECKPOINT_EVENTS: NonZeroU32 = NonZeroU32::new(32).expect("not zero");
/// Bytes that a dying process leaves unwritten at most; a tail of zeros is as long at most.
const TAIL_MAX: u64 = 4_096;

/// See the module.
#[derive(Debug)]
pub(in crate::swarm) struct Recording {
    writer: Writer,
    /// A bug that was put into the coordinator is in its replay too.
    mischief: Mischief,
    bytes: Vec<u8>,
    /// Where the record of each event ends.
    ends: Vec<usize>,
}

/// What a dead process left of its journal.
#[derive(Clone, Debug, Default)]
pub(in crate::swarm) struct Torn(Vec<u8>);

impl Recording {
    /// `left` is there already: nothing, unless a bug goes on with the journal of the process before.
    pub(super) fn begin(core: &Coordinator, mischief: Mischief, left: Torn) -> Self {
        let mut bytes = left.0;
        let writer = Writer::begin(core.config(), CHECKPOINT_EVENTS, &mut bytes);
        Self {
            writer: writer.expect("a small configuration"),
            mischief,
            bytes,
            ends: Vec::new(),
        }
    }

    pub(super) fn before(&mut self, now: Tick, event: &Event<'_>) {
        let written = self.writer.event(now, event, &mut self.bytes);
        written.expect("events are small");
        self.ends.push(self.bytes.len());
    }

    pub(super) fn after(&mut self, effects: &Effects, core: &Coordinator) {
        self.writer.effects(effects, 0);
        if self.writer.is_checkpoint_due() {
            let is_due = self.writer.is_state_due(core.weight());
            let state = is_due.then(|| core.digest());
            self.writer.checkpoint(state, &mut self.bytes);
        }
    }

    /// INV-33: the process ended in order, and its journal says so and replays to where it stood.
    pub(in crate::swarm) fn close(mut self, core: &Coordinator) -> Result<(), Violation> {
        self.writer.close(Some(core.digest()), &mut self.bytes);
        let mut reader = Reader::open(&self.bytes).map_err(|fault| unreadable(&fault))?;
        let mut replayed = reader.coordinator().map_err(|fault| unreadable(&fault))?;
        replayed.dangerous_plant(self.mischief);
        let report = replay(&mut reader, &mut replayed);
        let events = self.ends.len() as u64;
        let is_whole = report.ending == Ending::Closed && report.events == events;
        require(is_whole && report.is_faithful(), "INV-33", || {
            format!("a journal of {events} events that was closed replays as {report:?}")
        })
    }

    /// INV-33: the process died. Of what it wrote the end is missing, or zeros; what is left replays to
    /// the last event that is whole.
    pub(in crate::swarm) fn tear(
        self,
        stream: &mut Stream,
        marks: &mut Marks,
    ) -> Result<Torn, Violation> {
        let size = self.bytes.len() as u64;
        let lost = match stream.below(8) {
            0 => stream.below(size + 1),
            _ => stream.below(TAIL_MAX.min(size) + 1),
        };
        let kept = usize::try_from(size - lost).expect("a length");
        let zeros = match stream.below(2) {
            0 => 0,
            _ => usize::try_from(stream.below(TAIL_MAX)).expect("a page"),
        };
        let mut bytes = self.bytes[..kept].to_vec();
        bytes.resize(kept + zeros, 0);
        // A record that ends in zeros may be whole all the same.
        let same = bytes.iter().zip(&self.bytes).take_while(|(a, b)| a == b);
        let same = same.count();
        let whole = self.ends.partition_point(|end| *end <= same) as u64;
        match require_replayed(&bytes, self.mischief, whole)? {
            None => marks.hit(Mark::World("a journal was torn in its header")),
            Some(0) => marks.hit(Mark::World(
                "a journal was torn before its first checkpoint",
            )),
            Some(_) => {}
        }
        Ok(Torn(bytes))
    }
}

/// How many checkpoints agree; `None`: there is no header.
fn require_replayed(
    bytes: &[u8],
    mischief: Mischief,
    whole: u64,
) -> Result<Option<u64>, Violation> {
    let mut reader = match Reader::open(bytes) {
        Ok(reader) => reader,
        // The header itself is torn.
        Err(fault) => {
            require(whole == 0, "INV-33", || unreadable(&fault).what)?;
            return Ok(None);
        }
    };
    let mut core = reader.coordinator().map_err(|fault| unreadable(&fault))?;
    core.dangerous_plant(mischief);
    let report = replay(&mut reader, &mut core);
    let agrees = report.diverged.is_none() && report.strayed.is_none();
    let is_torn = report.ending != Ending::Closed;
    require(
        agrees && is_torn && report.events == whole,
        "INV-33",
        || format!("a torn journal of {whole} whole events replays as {report:?}"),
    )?;
    Ok(Some(report.checkpoints))
}

fn unreadable(fault: &Fault) -> Violation {
    Violation {
        law: "INV-33",
        what: format!("a journal cannot be read: {fault}"),
    }
}
