//! Identities. Each is a newtype, so that two of them can never be swapped.
//!
//! External ids come from the caller (or from a keyed draw), keys come from a slab: a key is eight
//! bytes and carries a generation, so a key from a past life finds nothing.

use core::fmt;

use serde::{Deserialize, Serialize};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        pub struct $name(pub $inner);
    };
}

id! {
    /// A consumer's or an operator's account, numbered by the store.
    AccountId(u64)
}
id! {
    /// One run of one coordinator's process, numbered by the store, never used twice. Whatever a
    /// process numbers begins with it, so that two coordinators on one store, or one before and after a
    /// crash, never give one number to two things.
    Epoch(u32)
}
id! {
    /// One connection of a provider. Numbered by the shell from a counter; never used twice.
    ConnId(u64)
}
id! {
    /// What survives reconnects: the identity of a machine, made of the key that it proves. Faults and
    /// measured speeds belong to it.
    MachineId(u128)
}
id! {
    /// Position of a model in the [`crate::config::Catalog`].
    ModelIx(u16)
}
id! {
    /// What a consumer asked once. Chosen by the caller (a random 128-bit number), so that a repeat
    /// is recognised.
    RequestId(u128)
}
id! {
    /// The id of one attempt on the provider's wire: printed as a version 4 UUID, lower case.
    WireId(u128)
}

impl Epoch {
    /// Bits that one run has for its own numbers: a million a second for twelve days.
    const BITS: u32 = 40;
    /// The last: numbers stay within 63 bits, which is what databases hold.
    pub const MAX: Self = Self((1 << (63 - Self::BITS)) - 1);

    /// The number before the first of this run.
    ///
    /// # Panics
    /// The epoch is beyond [`Epoch::MAX`].
    #[must_use]
    pub const fn origin(self) -> u64 {
        assert!(self.0 <= Self::MAX.0, "no number is left for another run");
        (self.0 as u64) << Self::BITS
    }
}

impl WireId {
    /// Any 128 bits, with the version and variant bits of a version 4 UUID put in.
    #[must_use]
    pub const fn from_bits(bits: u128) -> Self {
        let versioned = (bits & !(0xf << 76)) | (0x4 << 76);
        Self((versioned & !(0x3 << 62)) | (0x2 << 62))
    }

    /// Reads the 36-character form. `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        if bytes.len() != 36 {
            return None;
        }
        let mut value = 0u128;
        for (ix, &byte) in bytes.iter().enumerate() {
            if matches!(ix, 8 | 13 | 18 | 23) {
                if byte != b'-' {
                    return None;
                }
                continue;
            }
            let digit = char::from(byte).to_digit(16)?;
            value = (value << 4) | u128::from(digit);
        }
        Some(Self(value))
    }
}

impl fmt::Display for WireId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_uuid(self.0, f)
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_uuid(self.0, f)
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";

fn write_uuid(v: u128, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    // Written several times for each request: by hand, the formatter's numbers of 128 bits are slow.
    let mut text = [b'-'; 36];
    let mut at = 0;
    for (ix, byte) in v.to_be_bytes().into_iter().enumerate() {
        at += usize::from(matches!(ix, 4 | 6 | 8 | 10));
        text[at] = HEX[usize::from(byte >> 4)];
        text[at + 1] = HEX[usize::from(byte & 15)];
        at += 2;
    }
    f.write_str(core::str::from_utf8(&text).expect("digits and hyphens"))
}

/// Names one attempt inside the coordinator. A stale key (its attempt has ended) finds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AttemptKey {
    pub slot: u32,
    pub generation: u32,
}
