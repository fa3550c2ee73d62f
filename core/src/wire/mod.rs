//! The provider wire: the JSON text frames of `docs/protocol.md`, both directions, no state.
//!
//! The coordinator's side decodes leniently, as the reference coordinator does (every field has a
//! default, `null` counts as absence, unknown keys are skipped, the last duplicate wins); the
//! provider's side is strict. Both encode into a buffer that the caller gives. Nothing in here may
//! panic on any bytes, recurse on their depth, or put their text into an error.

mod chunk;
pub mod clock;
pub mod limits;
pub mod messages;
pub mod proof;
mod report;
pub mod scan;
mod sealed;
mod text;

pub use chunk::{ChunkFrame, encode_chunk};
pub use messages::{DecodeError, Frame, FrameKind, ToCoordinator, ToProvider};
pub use report::{REPORTED_SLOTS_MAX, machine_spec};
pub use text::Text;
