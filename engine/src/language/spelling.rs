//! The bytes that tokens stand for. A vocabulary writes its tokens as text, and its decoder says how
//! that text spells bytes which are no characters of their own.

use tokenizers::DecoderWrapper;

/// How a vocabulary spells bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spelling {
    /// Each character is one byte.
    Bytes,
    /// Plain text, with a character of its own for a blank, and `<0x0A>` for bytes that are no text.
    Pieces,
    /// Some other way, which joins tokens by rules.
    Unknown,
}

/// What pieces have for a blank.
const PIECE_BLANK: char = '\u{2581}';

impl Spelling {
    pub(super) fn of(decoder: Option<&DecoderWrapper>) -> Self {
        match decoder {
            Some(DecoderWrapper::ByteLevel(_)) => Self::Bytes,
            Some(DecoderWrapper::Metaspace(it)) if it.get_replacement() == PIECE_BLANK => {
                Self::Pieces
            }
            Some(DecoderWrapper::Sequence(sequence)) => {
                let parts = sequence.get_decoders();
                let is_bytes = |part: &DecoderWrapper| matches!(part, DecoderWrapper::ByteLevel(_));
                let is_fallback =
                    |part: &DecoderWrapper| matches!(part, DecoderWrapper::ByteFallback(_));
                if parts.iter().any(is_bytes) {
                    Self::Bytes
                } else if parts.iter().any(is_fallback) {
                    Self::Pieces
                } else {
                    Self::Unknown
                }
            }
            Some(
                DecoderWrapper::BPE(_)
                | DecoderWrapper::WordPiece(_)
                | DecoderWrapper::Metaspace(_)
                | DecoderWrapper::CTC(_)
                | DecoderWrapper::Replace(_)
                | DecoderWrapper::Fuse(_)
                | DecoderWrapper::Strip(_)
                | DecoderWrapper::ByteFallback(_),
            )
            | None => Self::Unknown,
        }
    }

    /// The bytes of a token that the vocabulary writes like this; `None` where it is no spelling.
    pub(super) fn bytes(self, token: &str) -> Option<Vec<u8>> {
        match self {
            Self::Bytes => token.chars().map(byte_of).collect(),
            Self::Pieces => Some(match fallback(token) {
                Some(byte) => vec![byte],
                None => token.replace(PIECE_BLANK, " ").into_bytes(),
            }),
            Self::Unknown => None,
        }
    }
}

/// `<0x0A>` is the byte 10.
fn fallback(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    let is_byte = digits.len() == 2 && digits.bytes().all(|it| it.is_ascii_hexdigit());
    is_byte
        .then(|| u8::from_str_radix(digits, 16).ok())
        .flatten()
}

/// Bytes that print stand for themselves; the others follow one another from U+0100 on.
fn byte_of(char: char) -> Option<u8> {
    let prints = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let code = u32::from(char);
    if let Ok(byte) = u8::try_from(code) {
        return prints(byte).then_some(byte);
    }
    let place = usize::try_from(code.checked_sub(0x100)?).ok()?;
    (0..=u8::MAX).filter(|&byte| !prints(byte)).nth(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_one_character() {
        let chars = (0..0x200).filter_map(char::from_u32);
        let mut bytes: Vec<u8> = chars.filter_map(byte_of).collect();
        bytes.sort_unstable();
        assert_eq!(bytes, (0..=u8::MAX).collect::<Vec<_>>());
        assert_eq!(Spelling::Bytes.bytes("Ġa"), Some(b" a".to_vec()));
        assert_eq!(Spelling::Bytes.bytes("Ċ"), Some(b"\n".to_vec()));
        assert_eq!(Spelling::Bytes.bytes("€"), None);
    }

    #[test]
    fn pieces_are_text_but_for_blanks_and_single_bytes() {
        assert_eq!(Spelling::Pieces.bytes("▁a€"), Some(" a€".into()));
        assert_eq!(Spelling::Pieces.bytes("<0xE2>"), Some(vec![0xe2]));
        for text in ["<0x>", "<0x123>", "<0xZZ>", "<0x+1>"] {
            assert_eq!(Spelling::Pieces.bytes(text), Some(text.into()), "{text}");
        }
    }
}
