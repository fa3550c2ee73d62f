//! Deep nesting from short inputs: a fuzzer seldom writes ten thousand brackets on its own.

use std::borrow::Cow;

/// Stands in an input for many brackets. No UTF-8 text has this byte, so none is lost by it.
const MARK: u8 = 0xff;
/// Brackets for each unit of the byte after the mark.
const BRACKETS_PER_UNIT: usize = 32;
/// Longest text that marks make, in bytes.
const SIZE_MAX: usize = 32 << 10;

/// `input` with each mark and the byte after it replaced by nested arrays or objects.
#[must_use]
pub fn unfolded(input: &[u8]) -> Cow<'_, [u8]> {
    if !input.contains(&MARK) {
        return Cow::Borrowed(input);
    }
    let mut out = Vec::with_capacity(input.len() * 2);
    let mut rest = input;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        let Some((&count, after)) = after.split_first().filter(|_| byte == MARK) else {
            out.push(byte);
            continue;
        };
        rest = after;
        let bracket: &[u8] = if count % 2 == 0 { b"[" } else { b"{\"a\":" };
        for _ in 0..usize::from(count) * BRACKETS_PER_UNIT {
            if out.len() > SIZE_MAX {
                break;
            }
            out.extend_from_slice(bracket);
        }
    }
    Cow::Owned(out)
}
