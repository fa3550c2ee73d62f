//! Where a model's files lie, given what somebody names: a model folder, or a repository of the hub's
//! cache, whose files are some levels below it.

use std::fs;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// How the hub's cache names a repository's folder.
const REPOSITORY_PREFIX: &str = "models--";
const SNAPSHOTS: &str = "snapshots";
/// Kinds of files that hold weights for other engines, by the ends of their names.
pub(super) const FOREIGN: [(&str, &str); 5] = [
    (
        ".gguf",
        "a GGUF file, which llama.cpp reads and this engine does not; fetch the model's repository \
         with safetensors, its original or one converted for MLX",
    ),
    (
        ".ggml",
        "a file of an old llama.cpp; fetch the model's repository with safetensors",
    ),
    (
        ".bin",
        "a PyTorch file, which can hold programs and is not read; fetch the model's repository \
         with safetensors",
    ),
    (
        ".pth",
        "a PyTorch file, which can hold programs and is not read; fetch the model's repository \
         with safetensors",
    ),
    (
        ".npz",
        "a NumPy archive of an old MLX; convert the model anew with mlx_lm.convert",
    ),
];

/// A model's folder and its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelPlace {
    /// Where `config.json` and the weights are.
    pub folder: PathBuf,
    /// The repository's where there is one, else the folder's.
    pub name: Option<String>,
}

/// What was named is no place of a model.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PlaceError {
    #[error("it is {}", foreign_kind(.0))]
    Foreign(String),
    #[error("it is a file; name the folder that it lies in")]
    IsFile,
    #[error("there is nothing of this name")]
    Nothing,
    #[error(
        "it is a repository of the hub's cache without a snapshot; fetch the model again, for \
         instance with `hf download`"
    )]
    NoSnapshot,
}

/// What the file of this name is.
pub(super) fn foreign_kind(name: &str) -> &'static str {
    let found = FOREIGN.iter().find(|(end, _)| name.ends_with(end));
    found.map_or("a file of another engine", |(_, kind)| kind)
}

impl ModelPlace {
    /// Looks where the files are. A repository of the hub's cache stands for the snapshot that its
    /// branch `main` names, else for the one that changed last.
    ///
    /// # Errors
    /// It is a file, nothing at all, or a repository without files.
    pub fn find(named: &Path) -> Result<Self, PlaceError> {
        // `.` and `..` have a name only once they are resolved.
        let path = named.canonicalize().map_err(|_| PlaceError::Nothing)?;
        if path.is_file() {
            let name = own_name(named).unwrap_or_default();
            let is_foreign = FOREIGN.iter().any(|(end, _)| name.ends_with(end));
            return Err(if is_foreign {
                PlaceError::Foreign(name)
            } else {
                PlaceError::IsFile
            });
        }
        if let Some(name) = repository_name(&path) {
            let folder = snapshot(&path).ok_or(PlaceError::NoSnapshot)?;
            return Ok(Self {
                folder,
                name: Some(name),
            });
        }
        // A snapshot is named after its repository: its own name is a hash.
        let above = path.parent().filter(|it| it.ends_with(SNAPSHOTS));
        let repository = above.and_then(Path::parent).and_then(repository_name);
        Ok(Self {
            name: repository.or_else(|| own_name(&path)),
            folder: named.to_owned(),
        })
    }
}

fn own_name(path: &Path) -> Option<String> {
    Some(path.file_name()?.to_str()?.to_owned())
}

/// `models--acme--small` is `acme/small`.
fn repository_name(path: &Path) -> Option<String> {
    let name = own_name(path)?;
    Some(name.strip_prefix(REPOSITORY_PREFIX)?.replace("--", "/"))
}

fn snapshot(repository: &Path) -> Option<PathBuf> {
    let all = repository.join(SNAPSHOTS);
    let main = fs::read_to_string(repository.join("refs/main")).ok();
    let main = main.map(|commit| all.join(commit.trim()));
    if let Some(main) = main.filter(|path| path.is_dir() && *path != all) {
        return Some(main);
    }
    let folders = fs::read_dir(&all).ok()?.flatten().map(|entry| entry.path());
    let changed = |path: &PathBuf| fs::metadata(path).and_then(|it| it.modified()).ok();
    folders.filter(|path| path.is_dir()).max_by_key(changed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(root: &Path, path: &str) -> PathBuf {
        let path = root.join(path);
        fs::create_dir_all(&path).unwrap();
        path
    }

    #[test]
    fn a_repository_of_the_cache_stands_for_its_main_snapshot_and_gives_the_name() {
        let root = tempfile::tempdir().unwrap();
        let repository = folder(root.path(), "models--acme--Small-4bit");
        assert_eq!(ModelPlace::find(&repository), Err(PlaceError::NoSnapshot));
        let old = folder(&repository, "snapshots/0a");
        let found = ModelPlace::find(&repository).unwrap();
        assert!(found.folder.ends_with("snapshots/0a"), "the only one");
        folder(&repository, "snapshots/0b");
        folder(&repository, "refs");
        fs::write(repository.join("refs/main"), "0a\n").unwrap();
        let found = ModelPlace::find(&repository).unwrap();
        assert!(found.folder.ends_with("snapshots/0a"));
        assert_eq!(found.name.as_deref(), Some("acme/Small-4bit"));
        // The snapshot itself has the same name.
        assert_eq!(ModelPlace::find(&old).unwrap().name, found.name);
    }

    #[test]
    fn what_is_no_folder_is_named_for_what_it_is() {
        let root = tempfile::tempdir().unwrap();
        let plain = folder(root.path(), "tiny");
        let found = ModelPlace::find(&plain).unwrap();
        assert_eq!((found.folder, found.name.as_deref()), (plain, Some("tiny")));
        let of = |name: &str| {
            let path = root.path().join(name);
            fs::write(&path, "x").unwrap();
            ModelPlace::find(&path).unwrap_err().to_string()
        };
        let text = of("model-Q4_K_M.gguf");
        assert!(
            text.contains("GGUF") && text.contains("safetensors"),
            "{text}"
        );
        assert!(of("config.json").contains("name the folder"));
        let nothing = ModelPlace::find(&root.path().join("nowhere"));
        assert_eq!(nothing, Err(PlaceError::Nothing));
    }
}
