//! Never built: see the manifest.
