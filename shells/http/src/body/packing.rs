//! How a body is compressed, and the decoders with the memory that each may take.

use std::io;
use std::pin::Pin;

use async_compression::tokio::bufread::{BrotliDecoder, GzipDecoder, ZstdDecoder};
use async_compression::zstd::DParameter;
use bytes::Bytes;
use cereus_core::api::Envelope;
use futures_util::stream::{self, StreamExt as _};
use hyper::StatusCode;
use hyper::header::{CONTENT_ENCODING, HeaderMap, HeaderValue};
use tokio::io::AsyncRead;
use tokio_util::io::StreamReader;

use super::arrival::{Arrival, Refused};
use crate::reply::complaint;

/// For the header Accept-Encoding of a refusal.
pub(crate) const PACKINGS: &str = "gzip, br, zstd";
/// RFC 9659: no encoder of HTTP may ask for a larger window, and libzstd's own bound is 128 MiB.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;
/// RFC 7932; larger windows are an extension of it.
const BROTLI_WINDOW_SIZE_MAX: usize = 16 << 20;
/// Tables and buffers of a decoder beside its window.
const TABLES_SIZE: usize = 1 << 20;
/// Window and state.
const GZIP_SIZE: usize = 64 << 10;
/// The first seven bits of a brotli stream whose window is larger than the RFC knows.
const BROTLI_LARGE: u8 = 0x11;

/// What undoes the compression of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packing {
    Brotli,
    Gzip,
    Plain,
    Zstd,
}

impl Packing {
    /// # Errors
    /// 415 for one that is not read here, and for several at once.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self, Envelope> {
        let mut named = headers.get_all(CONTENT_ENCODING).iter();
        let packing = match (named.next().map(HeaderValue::as_bytes), named.next()) {
            (None, _) => Some(Self::Plain),
            (Some(_), Some(_)) => None,
            (Some(name), None) => match name.to_ascii_lowercase().as_slice() {
                b"br" => Some(Self::Brotli),
                b"gzip" | b"x-gzip" => Some(Self::Gzip),
                b"" | b"identity" => Some(Self::Plain),
                b"zstd" => Some(Self::Zstd),
                _ => None,
            },
        };
        packing.ok_or_else(|| {
            let text = "the Content-Encoding is not one that this server reads: send the body \
                        plain, or as gzip, br or zstd";
            let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            complaint(status, "unsupported_content_encoding", text)
        })
    }

    /// The most that its decoder takes.
    pub(super) const fn decoder_size(self) -> usize {
        match self {
            Self::Brotli => BROTLI_WINDOW_SIZE_MAX + TABLES_SIZE,
            Self::Gzip => GZIP_SIZE,
            Self::Plain => 0,
            Self::Zstd => (1 << ZSTD_WINDOW_LOG_MAX) + TABLES_SIZE,
        }
    }

    /// A stream that begins so would take more than [`Self::decoder_size`] and is not told so by its
    /// decoder.
    pub(super) fn is_forbidden(self, first: &[u8]) -> bool {
        self == Self::Brotli
            && first
                .first()
                .is_some_and(|byte| byte & 0x7f == BROTLI_LARGE)
    }

    /// The body without its compression. Errors are a [`Refused`], or its own.
    pub(super) fn decoder(self, first: Bytes, rest: Arrival) -> Pin<Box<dyn AsyncRead + Send>> {
        let rest = stream::unfold(rest, async |mut rest: Arrival| {
            let next = rest.next().await.transpose()?;
            let next = next.map_err(|refused| io::Error::other(Refused(refused)));
            Some((next, rest))
        });
        let wire = stream::iter([Ok(first)]).chain(rest);
        let wire = StreamReader::new(Box::pin(wire));
        match self {
            Self::Brotli => Box::pin(BrotliDecoder::new(wire)),
            Self::Gzip => Box::pin(GzipDecoder::new(wire)),
            Self::Plain => Box::pin(wire),
            Self::Zstd => {
                let window = DParameter::window_log_max(ZSTD_WINDOW_LOG_MAX);
                let mut decoder = ZstdDecoder::with_params(wire, &[window]);
                decoder.multiple_members(true);
                Box::pin(decoder)
            }
        }
    }
}
