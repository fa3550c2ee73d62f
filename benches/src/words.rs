//! Prompts of a known length, for models made by `benches/mlx_lm/make.py`.

use std::fs;
use std::path::Path;

use serde_json::Value;

/// Words that are one token each.
#[derive(Debug)]
pub struct Words(Vec<String>);

impl Words {
    /// Reads those of a model's folder.
    pub fn read(model: &Path) -> Result<Self, String> {
        let path = model.join("words.json");
        let unreadable = |why: &dyn std::fmt::Display| {
            format!(
                "cannot read {}: {why}; `cargo xtask bench engine` makes it",
                path.display()
            )
        };
        let text = fs::read(&path).map_err(|error| unreadable(&error))?;
        let value: Value = serde_json::from_slice(&text).map_err(|error| unreadable(&error))?;
        let words = value.as_array().map_or(&[][..], Vec::as_slice);
        let words: Vec<String> = words
            .iter()
            .filter_map(|word| word.as_str().map(str::to_owned))
            .collect();
        if words.is_empty() {
            return Err(unreadable(&"it holds no words"));
        }
        Ok(Self(words))
    }

    /// So many tokens. Texts of different numbers differ from early on.
    #[must_use]
    pub fn text(&self, number: u64, tokens: u32) -> String {
        let words: Vec<&str> = (0..u64::from(tokens))
            .map(|place| {
                let ix = mixed(number.wrapping_mul(1 << 20).wrapping_add(place));
                let ix = usize::try_from(ix % self.0.len() as u64);
                self.0[ix.expect("below the length of a vector")].as_str()
            })
            .collect();
        words.join(" ")
    }
}

/// The finaliser of SplitMix64.
fn mixed(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}
