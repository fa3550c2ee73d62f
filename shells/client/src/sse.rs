//! Server-sent events: bytes in, `data` payloads out.

use bytes::{Buf as _, BytesMut};

/// Longest line of a stream that this client takes.
const LINE_SIZE_MAX: usize = 1 << 20;

/// The bytes are not server-sent events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Malformed {
    LineTooLong,
    NotUtf8,
}

/// Cuts a stream into payloads, wherever the network cut it.
#[derive(Debug, Default)]
pub(crate) struct Events {
    buffer: BytesMut,
    /// How much of the buffer is known to hold no line end.
    searched: usize,
}

impl Events {
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next payload that is complete. Comments and other fields are skipped.
    pub(crate) fn next(&mut self) -> Result<Option<String>, Malformed> {
        loop {
            let found = self.buffer[self.searched..]
                .iter()
                .position(|byte| *byte == b'\n');
            let Some(found) = found else {
                self.searched = self.buffer.len();
                if self.searched > LINE_SIZE_MAX {
                    return Err(Malformed::LineTooLong);
                }
                return Ok(None);
            };
            let line = self.buffer.split_to(self.searched + found);
            self.buffer.advance(1);
            self.searched = 0;
            let line = line.strip_suffix(b"\r").unwrap_or(&line);
            if let Some(data) = line.strip_prefix(b"data:") {
                let data = data.strip_prefix(b" ").unwrap_or(data);
                let text = std::str::from_utf8(data).map_err(|_| Malformed::NotUtf8)?;
                return Ok(Some(text.to_owned()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_are_the_same_wherever_the_stream_is_cut() {
        let stream = b": ping\r\n\r\ndata: {\"a\":1}\r\n\r\ndata:b\n\nevent: x\ndata: [DONE]\n\n";
        for cut in 0..=stream.len() {
            let mut events = Events::default();
            let mut payloads = vec![];
            for part in [&stream[..cut], &stream[cut..]] {
                events.feed(part);
                while let Some(payload) = events.next().unwrap() {
                    payloads.push(payload);
                }
            }
            assert_eq!(payloads, ["{\"a\":1}", "b", "[DONE]"], "cut at {cut}");
        }
    }

    #[test]
    fn an_endless_line_is_refused() {
        let mut events = Events::default();
        events.feed(&vec![b'x'; LINE_SIZE_MAX + 1]);
        assert_eq!(events.next(), Err(Malformed::LineTooLong));
    }
}
