//! The names of blocks, against their definition written out.

use proptest::prelude::*;
use sha2::{Digest as _, Sha256};

use crate::kv::{BlockHash, Chain, Scope};

const CONTRACT: &[u8] = b"a contract";

fn scope(salt: &[u8]) -> Scope {
    Scope::new(salt).unwrap()
}

fn hashes(salt: &[u8], block: u32, tokens: &[u32]) -> Vec<BlockHash> {
    let mut out = Vec::new();
    Chain::new(CONTRACT, &scope(salt), block).extend(tokens, &mut out);
    out
}

/// ENG-14.
#[test]
fn a_block_hash_is_what_the_specification_says() {
    let tokens: Vec<u32> = (0..512).map(|ix| ix * 77_777).collect();
    let mut parent = [0u8; 32];
    let mut expected = Vec::new();
    for (ix, block) in (0u32..).zip(tokens.chunks_exact(256)) {
        let mut bytes = b"darkbloom.prefix-block-chain.v1".to_vec();
        for item in [CONTRACT, b"salt"] {
            bytes.extend((item.len() as u32).to_be_bytes());
            bytes.extend(item);
        }
        bytes.extend(parent);
        bytes.extend(ix.to_be_bytes());
        bytes.extend(block.iter().flat_map(|token| token.to_be_bytes()));
        parent = Sha256::digest(&bytes).into();
        expected.push(BlockHash(parent));
    }
    assert_eq!(hashes(b"salt", 256, &tokens), expected);
}

/// ENG-14, with literals from Python's hashlib over the same bytes.
#[test]
fn a_known_chain_keeps_its_hashes() {
    let hex = |hash: &BlockHash| hash.0.map(|byte| format!("{byte:02x}")).concat();
    let got = hashes(&[7; 32], 4, &[1, 2, 3, 4, 5, 6, 7, 8, 9]);
    let known = [
        "ee49101f2329b4f1a246a35cb4065dd20878669ff683749c89bf892afeeab9a4",
        "c39121f8d99ffd004e5bd7a8ef8d56795738088ef7d588d69e1d3c210e361eb2",
    ];
    assert_eq!(got.iter().map(hex).collect::<Vec<_>>(), known);

    // The reference's block, under a contract as it names one.
    let contract = hex(&BlockHash(Sha256::digest(b"contract").into()));
    let tokens: Vec<u32> = (0..513).map(|ix| ix * ix % 151_643).collect();
    let mut got = Vec::new();
    Chain::new(contract.as_bytes(), &scope(b"tenant-1"), 256).extend(&tokens, &mut got);
    let known = [
        "610b0b88e613c1c371709c39f7028471c1e48216264b500903488b05bc62ba1c",
        "531f87aef3e9089f58ff287ad83948bff6669a51bf495ad2f72c202401aad503",
    ];
    assert_eq!(got.iter().map(hex).collect::<Vec<_>>(), known);
}

proptest! {
    /// ENG-10: of two chains no hash is in both, unless scope, contract and all tokens up to there
    /// are the same; and then it stands at the same place.
    #[test]
    fn equal_names_mean_an_equal_beginning_of_one_scope(
        salts in prop::array::uniform2(prop::collection::vec(0u8..2, 1..4)),
        contracts in prop::array::uniform2(prop::collection::vec(0u8..2, 0..3)),
        block in 1u32..5,
        tokens in prop::array::uniform2(prop::collection::vec(0u32..2, 0..24)),
    ) {
        let [one, other] = [0, 1].map(|ix| {
            let mut out = Vec::new();
            let mut chain = Chain::new(&contracts[ix], &scope(&salts[ix]), block);
            chain.extend(&tokens[ix], &mut out);
            out
        });
        let is_one_tenant = salts[0] == salts[1] && contracts[0] == contracts[1];
        for (ix, hash) in one.iter().enumerate() {
            let end = (ix + 1) * block as usize;
            let beginnings = tokens.each_ref().map(|tokens| tokens.get(..end));
            let is_same = is_one_tenant && beginnings[0] == beginnings[1];
            let place = other.iter().position(|found| found == hash);
            prop_assert_eq!(place, is_same.then_some(ix));
        }
    }
}

#[test]
fn tokens_may_come_in_any_pieces() {
    let tokens: Vec<u32> = (0..100).collect();
    let whole = hashes(b"salt", 16, &tokens);
    assert_eq!(whole.len(), 6);
    for size in [1, 3, 16, 17, 99] {
        let mut chain = Chain::new(CONTRACT, &scope(b"salt"), 16);
        let mut out = Vec::new();
        for piece in tokens.chunks(size) {
            chain.extend(piece, &mut out);
        }
        assert_eq!(out, whole);
    }
}

#[test]
fn another_tenant_contract_or_beginning_gives_other_names() {
    let tokens: Vec<u32> = (0..64).collect();
    let own = hashes(b"one", 16, &tokens);
    let other = hashes(b"two", 16, &tokens);
    assert!(own.iter().all(|hash| !other.contains(hash)));
    let mut contract = Vec::new();
    Chain::new(b"another", &scope(b"one"), 16).extend(&tokens, &mut contract);
    assert!(own.iter().all(|hash| !contract.contains(hash)));
    let mut changed = tokens;
    changed[0] += 1;
    let changed = hashes(b"one", 16, &changed);
    assert!(own.iter().all(|hash| !changed.contains(hash)));
    // The lengths keep salt and contract apart.
    let mut shifted = Vec::new();
    Chain::new(b"a contrac", &scope(b"tone"), 16)
        .extend(&(0..64).collect::<Vec<_>>(), &mut shifted);
    assert!(own.iter().all(|hash| !shifted.contains(hash)));
}

#[test]
fn neither_salt_nor_tokens_are_printed() {
    let scope = scope(b"secret-salt");
    let mut chain = Chain::new(CONTRACT, &scope, 2);
    chain.extend(&[1_234_567, 7_654_321], &mut Vec::new());
    let shown = format!("{scope:?} {chain:?}");
    assert_eq!(shown, "Scope(11 bytes) Chain(1 blocks)");
    assert!(Scope::new(b"").is_none(), "nobody's salt is no scope");
}
