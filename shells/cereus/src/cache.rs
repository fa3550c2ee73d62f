//! Where `cereus local` keeps prompts beyond memory, and the key that seals them.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use cereus_core::time::Span;
use cereus_engine::disk::{DiskConfig, DiskKey, room_of};
use cereus_engine::kv::disk::DiskLimits;
use cereus_engine::runtime::DiskTier;

const KEY_FILE: &str = "cache.key";
/// A prompt that nobody asked with for so long is forgotten. The reference forgets those of many
/// tenants after half an hour; here they are one's own, and the day's work goes on after lunch.
const TTL: Span = Span::secs(86_400);
/// Of the disk, is left free.
const FREE_SHARE: u64 = 20;

/// The cache of so many bytes in a folder, sealed with the key in another.
pub(crate) fn tier(folder: &Path, data: &Path, size_max: u64) -> Result<DiskTier, String> {
    let unusable = |path: &Path, cause: &dyn std::fmt::Display| {
        format!(
            "cannot use {} for the cache ({cause}); choose another folder, or change its owner",
            path.display()
        )
    };
    for path in [folder, data] {
        if path.exists() && !path.is_dir() {
            return Err(unusable(path, &"not a folder"));
        }
        let mut builder = DirBuilder::new();
        let made = builder.recursive(true).mode(0o700).create(path);
        made.map_err(|cause| unusable(path, &cause))?;
    }
    let real = |path: &Path| fs::canonicalize(path).map_err(|cause| unusable(path, &cause));
    let folder = real(folder)?;
    if real(data)?.starts_with(&folder) {
        return Err(format!(
            "the key of the cache must not lie in the cache: choose a --data outside {}",
            folder.display()
        ));
    }
    let path = data.join(KEY_FILE);
    let key = DiskKey::load_or_make(&path)
        .map_err(|cause| format!("cannot use the key {}: {cause}", path.display()))?;
    let room = room_of(&folder);
    let limits = DiskLimits {
        size_max,
        ttl: TTL,
        free_min: room.map_or(0, |room| room.size / FREE_SHARE),
        ..DiskLimits::reference(room)
    };
    Ok(DiskTier::reference(DiskConfig::reference(
        folder, key, limits,
    )))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_key_is_made_for_its_owner_alone_and_outside_the_cache() {
        let folder = tempfile::tempdir().unwrap();
        let (cache, data) = (folder.path().join("cache"), folder.path().join("data"));
        let made = tier(&cache, &data, 8 << 30).unwrap();
        assert_eq!(made.files.limits.size_max, 8 << 30);
        let about = fs::metadata(data.join(KEY_FILE)).unwrap();
        assert_eq!(about.permissions().mode() & 0o777, 0o600);
        for inside in [cache.clone(), cache.join("data")] {
            let error = tier(&cache, &inside, 1).unwrap_err();
            assert!(error.contains("must not lie in the cache"), "{error}");
            assert!(!inside.join(KEY_FILE).exists());
        }
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let error = tier(&file, &data, 1).unwrap_err();
        assert!(error.contains("choose another folder"), "{error}");
    }
}
