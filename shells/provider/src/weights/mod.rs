//! Model folders on this machine: which there are, and what their files hash to.

mod files;
mod hash;
mod known;
mod parameters;
mod scan;
mod template;

pub use self::files::{FilesError, missing_or_damaged};
pub use self::hash::{Fingerprint, fingerprint, weight_hash};
pub use self::known::KnownHashes;
pub use self::scan::{FoundModel, PassedOver, Scan, hub_folder, open_model, scan, scan_whole};
pub use self::template::Rendering;
