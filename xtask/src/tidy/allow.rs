//! What is allowed, in one place: which crate may name which, and which crates of others the core
//! and xtask may name, each with its reason. A change of the architecture is a change of this file.

/// A crate of ours and the crates of ours that it may depend on.
pub(super) struct Arrow {
    pub(super) from: &'static str,
    pub(super) to: &'static [&'static str],
    /// Further ones, for its tests alone.
    pub(super) to_in_tests: &'static [&'static str],
    /// Features of ours that it must not switch on.
    pub(super) without: &'static [(&'static str, &'static str)],
}

/// Shells and sim -> engine -> core. Core knows nobody.
pub(super) const ARROWS: &[Arrow] = &[
    Arrow {
        from: "cereus-core",
        to: &[],
        to_in_tests: &[],
        without: &[],
    },
    Arrow {
        from: "cereus-engine",
        to: &["cereus-core"],
        to_in_tests: &[],
        without: &[],
    },
    Arrow {
        from: "cereus-sim",
        to: &["cereus-core", "cereus-engine"],
        // The simulator plans with the engine's scheduler and models the tensors.
        to_in_tests: &[],
        without: &[("cereus-engine", "mlx")],
    },
    Arrow {
        from: "cereus-http",
        to: &["cereus-core"],
        to_in_tests: &[],
        without: &[],
    },
    Arrow {
        from: "cereus-coordinator",
        to: &["cereus-core", "cereus-http", "cereus-socket"],
        to_in_tests: &["cereus-client"],
        without: &[],
    },
    Arrow {
        from: "cereus-provider",
        to: &["cereus-core", "cereus-engine", "cereus-socket"],
        to_in_tests: &[],
        without: &[],
    },
    Arrow {
        from: "cereus-local",
        to: &["cereus-core", "cereus-engine", "cereus-http"],
        to_in_tests: &[],
        without: &[],
    },
    // Frames in and out; what they mean is the business of its two users.
    Arrow {
        from: "cereus-socket",
        to: &[],
        to_in_tests: &[],
        without: &[],
    },
    Arrow {
        from: "cereus-client",
        to: &["cereus-core"],
        to_in_tests: &[],
        without: &[],
    },
    Arrow {
        from: "cereus",
        to: &[
            "cereus-client",
            "cereus-coordinator",
            "cereus-core",
            "cereus-engine",
            "cereus-local",
            "cereus-provider",
        ],
        to_in_tests: &[],
        without: &[],
    },
    Arrow {
        from: "cereus-benches",
        to: &[
            "cereus-client",
            "cereus-coordinator",
            "cereus-core",
            "cereus-engine",
            "cereus-provider",
            "cereus-sim",
        ],
        to_in_tests: &[],
        without: &[],
    },
    Arrow {
        from: "cereus-fuzz",
        to: &["cereus-core", "cereus-engine"],
        to_in_tests: &[],
        without: &[],
    },
    // Stand-ins for two published crates, so that MLX builds on Linux.
    Arrow {
        from: "mach-sys",
        to: &[],
        to_in_tests: &[],
        without: &[],
    },
    Arrow {
        from: "mlx-sys",
        to: &[],
        to_in_tests: &[],
        without: &[],
    },
    Arrow {
        from: "xtask",
        to: &[],
        to_in_tests: &[],
        without: &[],
    },
];

/// A crate of others that one of ours may name, and why.
pub(super) struct External {
    pub(super) by: &'static str,
    pub(super) name: &'static str,
    /// For whoever reads this list; a test sees that it is there.
    #[cfg_attr(not(test), expect(dead_code, reason = "read by people"))]
    pub(super) why: &'static str,
}

/// The crates whose dependencies are counted; the others are free to use what is well kept.
pub(super) const COUNTED: &[&str] = &["cereus-core", "xtask"];

pub(super) const EXTERNALS: &[External] = &[
    External {
        by: "cereus-core",
        name: "base64",
        why: "keys, nonces and sealed chunks are base64 on the wire; encodes into reused buffers",
    },
    External {
        by: "cereus-core",
        name: "crc32fast",
        why: "the checksum on each journal record",
    },
    External {
        by: "cereus-core",
        name: "crypto_secretbox",
        why: "in tests: the NaCl box that the envelope must equal",
    },
    External {
        by: "cereus-core",
        name: "cryptoxide",
        why: "Poly1305 without the set-up that costs short chunks a microsecond",
    },
    External {
        by: "cereus-core",
        name: "memchr",
        why: "finds the end of a string in a chunk frame",
    },
    External {
        by: "cereus-core",
        name: "p256",
        why: "attestation signatures: checked, never made",
    },
    External {
        by: "cereus-core",
        name: "postcard",
        why: "compact records of the journal and of snapshots",
    },
    External {
        by: "cereus-core",
        name: "proptest",
        why: "tests only: random event sequences against slow models",
    },
    External {
        by: "cereus-core",
        name: "hkdf",
        why: "a key for each request of a sealed session",
    },
    External {
        by: "cereus-core",
        name: "salsa20",
        why: "HSalsa20, the key half of NaCl box",
    },
    External {
        by: "cereus-core",
        name: "serde",
        why: "wire messages, journal records, snapshots",
    },
    External {
        by: "cereus-core",
        name: "serde_json",
        why: "the wire is JSON",
    },
    External {
        by: "cereus-core",
        name: "sha2",
        why: "machine identities, challenge nonces",
    },
    External {
        by: "cereus-core",
        name: "smallvec",
        why: "a provider's few offers without a heap block",
    },
    External {
        by: "cereus-core",
        name: "x25519-dalek",
        why: "key agreement",
    },
    External {
        by: "cereus-core",
        name: "zeroize",
        why: "keys leave no trace in memory",
    },
    External {
        by: "xtask",
        name: "anstream",
        why: "colour on a terminal, plain text elsewhere",
    },
    External {
        by: "xtask",
        name: "anstyle",
        why: "the styles that anstream carries or strips",
    },
    External {
        by: "xtask",
        name: "clap",
        why: "the command line",
    },
    External {
        by: "xtask",
        name: "indicatif",
        why: "spinners with the time gone by",
    },
    External {
        by: "xtask",
        name: "serde_json",
        why: "cargo's metadata, and --json",
    },
];

/// Everything that may stand at the top of the tree.
pub(super) const TOP_FOLDERS: &[&str] = &[
    ".cargo", ".ci", "benches", "core", "docs", "engine", "fuzz", "shells", "sim", "traces",
    "xtask",
];
pub(super) const TOP_FILES: &[&str] = &[
    ".editorconfig",
    ".gitattributes",
    ".gitignore",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "clippy.toml",
    "deny.toml",
    "rust-toolchain.toml",
    "rustfmt.toml",
];

/// Libraries in which nothing may read a clock, draw randomness or open anything, and what the head
/// of each must therefore say.
pub(super) const PURE_HEADS: &[&str] = &["core/src/lib.rs", "sim/src/lib.rs"];
pub(super) const PURE_ATTRIBUTES: &[&str] = &[
    "forbid(unsafe_code)",
    "clippy::disallowed_types",
    "clippy::disallowed_methods",
];
