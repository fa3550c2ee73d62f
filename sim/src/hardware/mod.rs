//! What Macs can do, as public measurements say: `chips.csv` and `models.csv`, each figure with its
//! source. Chips were measured with the first model of the list; from these a chip's time with
//! another model follows by the work that the model is.
//!
//! Whole picoseconds and no floating point: a run gives the same report on every machine.

mod pairing;
mod table;

pub(crate) use pairing::{ATTENTION_PPM, CONTEXT_PERCENT, LONG, ROW_PERCENT, SHORT};
pub use pairing::{Chip, StepLoad, mtps};
pub use table::{ChipFacts, Hardware, HardwareError, ModelFacts, Place, PlaceError};
