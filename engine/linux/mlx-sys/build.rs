//! Binds to the MLX folder: bindgen over its headers, and the lines that link its library.

use std::env;
use std::error::Error;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

/// Where the MLX folder is, when not `<workspace>/.cache/mlx`.
const FOLDER_VARIABLE: &str = "CEREUS_MLX_DIR";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-env-changed={FOLDER_VARIABLE}");
    println!("cargo:rerun-if-changed=build.rs");

    let folder = mlx_folder()?;
    let stamp = folder.join("stamp");
    println!("cargo:rerun-if-changed={}", stamp.display());
    if !stamp.is_file() {
        return Err(format!(
            "no MLX in {}: run `cargo xtask setup` (or set {FOLDER_VARIABLE} to a folder made by \
             engine/linux/build-mlx.sh)",
            folder.display()
        )
        .into());
    }

    link(&folder.join("mlxc/lib"));
    bind(&folder.join("mlxc/include"))
}

fn mlx_folder() -> Result<PathBuf, Box<dyn Error>> {
    if let Some(folder) = env::var_os(FOLDER_VARIABLE) {
        return Ok(PathBuf::from(folder));
    }
    let manifest = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let workspace = manifest
        .ancestors()
        .nth(3)
        .ok_or("this crate lies three folders below the workspace")?;
    Ok(workspace.join(".cache/mlx"))
}

fn link(library_folder: &Path) {
    println!("cargo:rustc-link-search=native={}", library_folder.display());
    if env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("macos") {
        link_apple();
    } else {
        // One shared library, linked by the script with OpenBLAS ahead of MLX and with its own
        // absolute path as its name: whatever links it runs from anywhere, with no rpath.
        println!("cargo:rustc-link-lib=dylib=mlxc");
    }
}

/// Not built by CI: links what upstream links, from archives that the script built with Metal.
fn link_apple() {
    for archive in ["mlxc", "mlx", "gguflib"] {
        println!("cargo:rustc-link-lib=static={archive}");
    }
    println!("cargo:rustc-link-lib=c++");
    println!("cargo:rustc-link-lib=dylib=objc");
    for framework in ["Foundation", "Metal", "Accelerate"] {
        println!("cargo:rustc-link-lib=framework={framework}");
    }
}

fn bind(include: &Path) -> Result<(), Box<dyn Error>> {
    let mut headers = fs::read_dir(include.join("mlx/c"))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()?;
    headers.retain(|path| path.extension() == Some(OsStr::new("h")));
    headers.sort();
    let builder = bindgen::Builder::default()
        .clang_arg(format!("-I{}", include.display()))
        // As upstream: their `c_ulong` sizes differ from what rustc expects of these names.
        .blocklist_function("malloc")
        .blocklist_function("realloc")
        .layout_tests(false);
    let bindings = headers
        .iter()
        .fold(builder, |builder, header| builder.header(header.to_string_lossy()))
        .generate()?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    bindings.write_to_file(out.join("bindings.rs"))?;
    Ok(())
}
