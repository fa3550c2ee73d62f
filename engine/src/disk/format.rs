//! One file: a header that says which blocks follow, and the blocks, sealed.
//!
//! Little-endian: mark (8 bytes), version (4), count of blocks (4), size of the sealed part (8), tag of
//! the model (16), nonce (24), a tag of 16 bytes for each block, a MAC over all of this (32); then the
//! blocks, each behind its size (4), under XChaCha20-Poly1305 with the header as associated data. Tags
//! are made with a key as well, so that neither names nor headers tell of tokens or tenants.

use std::io::{self, Read};

use orion::hazardous::aead::xchacha20poly1305::{Nonce, SecretKey, open, seal};
use orion::hazardous::kdf::hkdf;
use orion::hazardous::mac::hmac::sha256::{HmacSha256, SecretKey as MacKey, Tag as Mac};
use orion::util::secure_rand_bytes;

use super::{DiskKey, Fingerprint};
use crate::kv::BlockHash;
use crate::kv::disk::BlockTag;

const MARK: [u8; 8] = *b"cereuskv";
const VERSION: u32 = 1;
const NONCE_SIZE: usize = 24;
const TAG_SIZE: usize = 16;
const MAC_SIZE: usize = 32;
/// Bytes that sealing adds to a block.
const SEAL_SIZE: u64 = 16;
/// Bytes before each block: its length.
const LENGTH_SIZE: u64 = 4;
/// Bytes of the header up to the tags of its blocks.
const FIXED_SIZE: usize = 8 + 4 + 4 + 8 + TAG_SIZE + NONCE_SIZE;

/// Keys for one purpose each, from the caller's.
pub(super) struct Keys {
    tags: MacKey,
    headers: MacKey,
    blocks: SecretKey,
}

/// Why a file was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadError {
    /// The file is cut short, was changed, or is of another key or format.
    Damaged,
    /// The system could not read the file.
    Withheld,
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Damaged,
            _ => Self::Withheld,
        }
    }
}

pub(super) struct Header {
    model: BlockTag,
    pub(super) tags: Vec<BlockTag>,
    sealed_size: u64,
    bytes: Vec<u8>,
}

impl Keys {
    pub(super) fn derive(key: &DiskKey) -> Self {
        let secret = hkdf::sha256::extract(b"cereus kv disk v1", &key.0);
        let secret = secret.expect("any key can be extracted from");
        let expand = |purpose: &[u8]| {
            let mut bytes = [0; 32];
            let expanded = hkdf::sha256::expand(&secret, Some(purpose), &mut bytes);
            expanded.expect("one block of output is not too much");
            bytes
        };
        let mac = |purpose| MacKey::from_slice(&expand(purpose)).expect("32 bytes are a key");
        Self {
            tags: mac(b"tags"),
            headers: mac(b"headers"),
            blocks: SecretKey::from_slice(&expand(b"blocks")).expect("32 bytes are a key"),
        }
    }

    pub(super) fn block(&self, model: &Fingerprint, hash: &BlockHash) -> BlockTag {
        self.tag(&[b"block", &model.0, &hash.0])
    }

    pub(super) fn model(&self, model: &Fingerprint) -> BlockTag {
        self.tag(&[b"model", &model.0])
    }

    fn tag(&self, parts: &[&[u8]]) -> BlockTag {
        let mac = mac_of(&self.tags, parts);
        let bytes = mac.unprotected_as_bytes();
        BlockTag(*bytes.first_chunk().expect("16 of 32 bytes"))
    }
}

fn mac_of(key: &MacKey, parts: &[&[u8]]) -> Mac {
    let mut mac = HmacSha256::new(key);
    for part in parts {
        mac.update(part).expect("nothing is finished yet");
    }
    mac.finalize().expect("it is finished once")
}

/// Of a file with so many blocks, which hold so many bytes together.
pub(super) const fn file_size(blocks: u64, bytes: u64) -> u64 {
    let header = FIXED_SIZE as u64 + blocks * TAG_SIZE as u64 + MAC_SIZE as u64;
    header + blocks * LENGTH_SIZE + bytes + SEAL_SIZE
}

/// Blocks of a size that fit a file of so many bytes.
pub(super) const fn blocks_in(size: u64, block_size: u64) -> u64 {
    let each = block_size.saturating_add(TAG_SIZE as u64 + LENGTH_SIZE);
    size.saturating_sub(file_size(0, 0)) / each
}

/// A whole file. `None` when the system has no randomness to give, or a block is too large.
pub(super) fn encode(
    keys: &Keys,
    model: BlockTag,
    tags: &[BlockTag],
    blocks: &[Vec<u8>],
) -> Option<Vec<u8>> {
    assert_eq!(tags.len(), blocks.len(), "each block has its tag");
    let mut plain = Vec::new();
    for block in blocks {
        plain.extend(u32::try_from(block.len()).ok()?.to_le_bytes());
        plain.extend(block);
    }
    let sealed_size = plain.len() as u64 + SEAL_SIZE;
    let mut nonce = [0; NONCE_SIZE];
    secure_rand_bytes(&mut nonce).ok()?;
    let mut file = Vec::new();
    file.extend(MARK);
    file.extend(VERSION.to_le_bytes());
    file.extend(u32::try_from(tags.len()).ok()?.to_le_bytes());
    file.extend(sealed_size.to_le_bytes());
    file.extend(model.0);
    file.extend(nonce);
    for tag in tags {
        file.extend(tag.0);
    }
    let mac = mac_of(&keys.headers, &[&file]);
    file.extend(mac.unprotected_as_bytes());
    let header_size = file.len();
    file.resize(header_size + plain.len() + SEAL_SIZE as usize, 0);
    let (header, sealed) = file.split_at_mut(header_size);
    let nonce = Nonce::from_slice(&nonce).expect("24 bytes are a nonce");
    seal(&keys.blocks, &nonce, &plain, Some(header), sealed).ok()?;
    Some(file)
}

/// Reads and checks what stands before the sealed part of a file of `size` bytes.
pub(super) fn read_header(
    keys: &Keys,
    file: &mut impl Read,
    size: u64,
    blocks_max: u32,
) -> Result<Header, ReadError> {
    let mut bytes = vec![0; FIXED_SIZE];
    file.read_exact(&mut bytes)?;
    let number = |at| u32::from_le_bytes(part(&bytes, at));
    let count = number(12);
    if bytes[..8] != MARK || number(8) != VERSION || !(1..=blocks_max).contains(&count) {
        return Err(ReadError::Damaged);
    }
    let sealed_size = u64::from_le_bytes(part(&bytes, 16));
    let model = BlockTag(part(&bytes, 24));
    let rest = count as usize * TAG_SIZE + MAC_SIZE;
    let header_size = FIXED_SIZE as u64 + rest as u64;
    if header_size.checked_add(sealed_size) != Some(size) {
        return Err(ReadError::Damaged);
    }
    bytes.resize(FIXED_SIZE + rest, 0);
    file.read_exact(&mut bytes[FIXED_SIZE..])?;
    let (signed, mac) = bytes.split_at(FIXED_SIZE + rest - MAC_SIZE);
    let mac = Mac::from_slice(mac).expect("32 bytes are a MAC");
    if HmacSha256::verify(&mac, &keys.headers, signed).is_err() {
        return Err(ReadError::Damaged);
    }
    let tags = signed[FIXED_SIZE..].chunks_exact(TAG_SIZE);
    let tags = tags.map(|tag| BlockTag(part(tag, 0))).collect();
    Ok(Header {
        model,
        tags,
        sealed_size,
        bytes,
    })
}

/// Reads and opens the blocks that follow a header.
pub(super) fn read_blocks(
    keys: &Keys,
    file: &mut impl Read,
    header: &Header,
    model: BlockTag,
) -> Result<Vec<Vec<u8>>, ReadError> {
    if header.model != model {
        return Err(ReadError::Damaged);
    }
    let size = usize::try_from(header.sealed_size).map_err(|_| ReadError::Damaged)?;
    let mut sealed = vec![0; size];
    file.read_exact(&mut sealed)?;
    let plain_size = size
        .checked_sub(SEAL_SIZE as usize)
        .ok_or(ReadError::Damaged)?;
    let mut plain = vec![0; plain_size];
    let nonce = &header.bytes[FIXED_SIZE - NONCE_SIZE..FIXED_SIZE];
    let nonce = Nonce::from_slice(nonce).expect("24 bytes are a nonce");
    open(
        &keys.blocks,
        &nonce,
        &sealed,
        Some(&header.bytes),
        &mut plain,
    )
    .map_err(|_| ReadError::Damaged)?;
    let mut blocks = Vec::with_capacity(header.tags.len());
    let mut rest = plain.as_slice();
    for _ in &header.tags {
        let (length, after) = rest.split_first_chunk().ok_or(ReadError::Damaged)?;
        let length = u32::from_le_bytes(*length) as usize;
        let (block, after) = after.split_at_checked(length).ok_or(ReadError::Damaged)?;
        blocks.push(block.to_vec());
        rest = after;
    }
    if rest.is_empty() {
        Ok(blocks)
    } else {
        Err(ReadError::Damaged)
    }
}

fn part<const SIZE: usize>(bytes: &[u8], at: usize) -> [u8; SIZE] {
    let part = bytes.get(at..at + SIZE).and_then(|part| part.first_chunk());
    *part.expect("the caller has read so much")
}
