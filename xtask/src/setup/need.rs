//! What the build needs from the system, and how to see that it is there without asking anyone.
//!
//! Every probe reads files or runs one small program, so that a second `setup` is instant and
//! works without a network.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// One thing that the build needs, with its name in each package manager.
pub(crate) struct Need {
    pub(crate) name: &'static str,
    pub(crate) why: &'static str,
    pub(crate) apt: &'static [&'static str],
    /// `None` where the Mac has it or does not need it.
    pub(crate) brew: Option<&'static str>,
    /// Where it was found.
    pub(crate) found: fn() -> Option<PathBuf>,
}

pub(crate) const NEEDS: &[Need] = &[
    Need {
        name: "C++ compiler",
        why: "builds the C interface of MLX, the tokenizer's and SQLite's C code",
        apt: &["g++"],
        brew: None,
        found: || first_program(&["c++", "g++", "clang++"]),
    },
    Need {
        name: "make",
        why: "drives the build of the C interface of MLX",
        apt: &["make"],
        brew: None,
        found: || program("make"),
    },
    Need {
        name: "cmake",
        why: "configures the C interface of MLX",
        apt: &["cmake"],
        brew: Some("cmake"),
        found: || first_program(&["cmake"]),
    },
    Need {
        name: "libclang",
        why: "bindgen reads the C headers of MLX with it",
        apt: &["libclang-dev"],
        brew: Some("llvm"),
        found: libclang,
    },
    Need {
        name: "OpenBLAS",
        why: "matrix products on the CPU, some forty times faster than MLX's own",
        apt: &["libopenblas-dev"],
        brew: None,
        found: || library("libopenblas.so"),
    },
    Need {
        name: "fmt",
        why: "stands in for std::format where the compiler has none (gcc 12)",
        apt: &["libfmt-dev"],
        brew: None,
        found: || header("fmt/format.h"),
    },
    Need {
        name: "Python with venv and pip",
        why: "fetches the MLX wheel, and runs the official openai package in the tests",
        apt: &["python3", "python3-venv", "python3-pip"],
        brew: Some("python"),
        found: python,
    },
];

pub(crate) fn program(name: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?)
        .map(|folder| folder.join(name))
        .find(|it| it.is_file())
}

fn first_program(names: &[&str]) -> Option<PathBuf> {
    names.iter().find_map(|name| program(name))
}

/// Folders that the linker searches, multi-arch ones first.
fn library_folders() -> Vec<PathBuf> {
    let arch = env::consts::ARCH;
    vec![
        format!("/usr/lib/{arch}-linux-gnu").into(),
        "/usr/lib64".into(),
        "/usr/lib".into(),
        "/usr/local/lib".into(),
        "/opt/homebrew/lib".into(),
    ]
}

fn library(file: &str) -> Option<PathBuf> {
    library_folders()
        .into_iter()
        .map(|folder| folder.join(file))
        .find(|path| path.exists())
}

fn header(file: &str) -> Option<PathBuf> {
    [
        "/usr/include",
        "/usr/local/include",
        "/opt/homebrew/include",
    ]
    .iter()
    .map(|folder| Path::new(folder).join(file))
    .find(|path| path.is_file())
}

/// Where bindgen looks, too: the variable, LLVM's own folders, the common ones.
fn libclang() -> Option<PathBuf> {
    if let Some(named) = env::var_os("LIBCLANG_PATH") {
        return Some(PathBuf::from(named));
    }
    let mut folders = vec![];
    for parent in ["/usr/lib", "/opt/homebrew/opt"] {
        for folder in entries(Path::new(parent)) {
            if file_name(&folder).starts_with("llvm") {
                folders.push(folder.join("lib"));
            }
        }
    }
    folders.extend(library_folders());
    folders.push("/Library/Developer/CommandLineTools/usr/lib".into());
    // The development name: a bare runtime package lacks the compiler's own headers.
    let names = ["libclang.so", "libclang.dylib"];
    folders
        .iter()
        .flat_map(|folder| names.iter().map(move |name| folder.join(name)))
        .find(|path| path.exists())
}

fn python() -> Option<PathBuf> {
    let python = program("python3")?;
    // Debian parts venv from the interpreter; only the import tells.
    let complete = Command::new(&python)
        .args(["-c", "import venv, ensurepip, pip"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    complete.then_some(python)
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let Ok(listing) = fs::read_dir(folder) else {
        return vec![];
    };
    let mut paths: Vec<PathBuf> = listing.flatten().map(|entry| entry.path()).collect();
    paths.sort_unstable();
    paths
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}
