//! A 128-bit running hash over values, equal on every machine.
//!
//! It implements [`Hasher`], so whatever derives `Hash` can be digested; widths are fixed and byte
//! order is little-endian whatever the platform. Not cryptographic: it finds divergence, not malice.

use core::hash::{Hash, Hasher};

use serde::{Deserialize, Serialize};

const MULTIPLIER_A: u64 = 0x9e37_79b9_7f4a_7c15;
const MULTIPLIER_B: u64 = 0xd6e8_feb8_6659_fd93;

/// State of a running digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Mix {
    a: u64,
    b: u64,
}

const fn folded(x: u64, y: u64) -> u64 {
    let wide = (x as u128) * (y as u128);
    (wide as u64) ^ ((wide >> 64) as u64)
}

impl Mix {
    #[must_use]
    pub const fn keyed(key: [u64; 2]) -> Self {
        Self {
            a: key[0] ^ MULTIPLIER_A,
            b: key[1] ^ MULTIPLIER_B,
        }
    }

    pub const fn word(&mut self, word: u64) -> &mut Self {
        self.a = folded(self.a ^ word, MULTIPLIER_A ^ self.b);
        self.b = folded(self.b.rotate_left(23) ^ word, MULTIPLIER_B).wrapping_add(self.a);
        self
    }

    pub const fn wide(&mut self, wide: u128) -> &mut Self {
        self.word(wide as u64).word((wide >> 64) as u64)
    }

    #[must_use]
    pub const fn end(&self) -> u64 {
        folded(self.a ^ MULTIPLIER_B, self.b ^ MULTIPLIER_A)
    }

    #[must_use]
    pub const fn end_wide(&self) -> u128 {
        let high = folded(self.a.rotate_left(17) ^ MULTIPLIER_A, self.b ^ MULTIPLIER_B);
        ((high as u128) << 64) | self.end() as u128
    }

    /// The digest of one value from nothing.
    #[must_use]
    pub fn of<T: Hash + ?Sized>(value: &T) -> u128 {
        let mut mix = Self::default();
        value.hash(&mut mix);
        mix.end_wide()
    }
}

impl Default for Mix {
    fn default() -> Self {
        Self::keyed([0, 0])
    }
}

impl Hasher for Mix {
    fn finish(&self) -> u64 {
        self.end()
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0u8; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.word(u64::from_le_bytes(word));
        }
        self.word(bytes.len() as u64);
    }

    fn write_u8(&mut self, value: u8) {
        self.word(u64::from(value));
    }

    fn write_u16(&mut self, value: u16) {
        self.word(u64::from(value));
    }

    fn write_u32(&mut self, value: u32) {
        self.word(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        self.word(value);
    }

    fn write_u128(&mut self, value: u128) {
        self.wide(value);
    }

    fn write_usize(&mut self, value: usize) {
        self.word(value as u64);
    }

    fn write_i64(&mut self, value: i64) {
        self.word(value as u64);
    }

    fn write_isize(&mut self, value: isize) {
        self.word(value as i64 as u64);
    }
}
