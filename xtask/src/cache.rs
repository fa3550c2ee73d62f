//! What scripts make once and keep in `.cache`, made anew when the script or its packages change.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::demo::test_script;
use crate::failure::{Doing, Failure};
use crate::python::Environment;
use crate::{project, run};

/// Holds what a folder was made by; compared before making it again.
const STAMP: &str = "made-by";

/// The folder `name` in the cache, as `script` fills it, which is given `args` and then the folder.
pub(crate) fn made(
    name: &str,
    script: &str,
    args: &[&str],
    label: &str,
    environment: &Environment,
) -> Result<PathBuf, Failure> {
    let folder = project::cache().join(name);
    let path = test_script(script)?;
    let text = fs::read_to_string(&path).doing(format!("read {script}"), "make it readable")?;
    let wanted = [environment.packages, args, &[text.as_str()]]
        .concat()
        .join("\n");
    let stamp = folder.join(STAMP);
    if fs::read_to_string(&stamp).is_ok_and(|made_by| made_by == wanted) {
        return Ok(folder);
    }
    clear(&folder)?;
    run::quietly(
        name,
        label,
        "read what the script says above",
        Command::new(environment.interpreter()?)
            .arg(path)
            .args(args)
            .arg(&folder),
    )?;
    fs::write(&stamp, wanted).doing(format!("note what made {name}"), "make .cache writable")?;
    Ok(folder)
}

/// What the script no longer makes must not be taken for new.
fn clear(folder: &Path) -> Result<(), Failure> {
    if !folder.exists() {
        return Ok(());
    }
    let shown = project::shown(folder);
    fs::remove_dir_all(folder).doing(format!("clear {shown}"), format!("delete {shown}"))
}
