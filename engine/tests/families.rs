//! Every family gives what mlx-lm gives: the same tokens, and the same logits to a thousandth.
//!
//! The engine is led along mlx-lm's answer, so that one token that comes out otherwise does not make all
//! that follow incomparable. Logits must be near after the prompt and after the answer. A token must be
//! the same wherever mlx-lm's margin between the two likeliest is above twice what a logit may be off:
//! where it is not, either token is right. How seeds are chosen stands in `families/make.py`.
//!
//! `CEREUS_FAMILIES_DIR` names a folder that `families/make.py` has filled: `cargo xtask test
//! families` does both, which is why a plain `cargo test` leaves this file out.
//!
//! Lines that begin with `compared` say what was found: the model, millions of parameters, how it was
//! held, the farthest that any logit is from mlx-lm's; for quantised weights the farthest that any is
//! from those of the original weights, here and in mlx-lm.

mod families {
    pub(crate) mod alone;
    pub(crate) mod served;
}

use std::fs;
use std::path::{Path, PathBuf};

use cereus_engine::model::{Layout, Load, QuantisedMatrices};
use families::{alone, served};
use serde::Deserialize;

/// Between two ways of summing the same numbers, in single precision; logits are about ten.
const TOLERANCE: f32 = 1e-3;
/// The greatest logits, about.
const LOGIT: f32 = 10.0;
/// Tokens of each answer whose margins say nothing are few.
const UNCLEAR_MAX: f32 = 0.1;
/// Ends the name of a folder with weights as a family's makers publish them: the same as elsewhere, so
/// only their reading is of interest.
const PUBLISHED: &str = "-published";

/// What mlx-lm says of a folder.
#[derive(Deserialize)]
struct Expected {
    millions: f64,
    rows: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    prompt: Vec<u32>,
    prefill_logits: Vec<f32>,
    answer: Vec<u32>,
    /// By how much each token of the answer was likelier than the next best.
    margins: Vec<f32>,
    last_logits: Vec<f32>,
    /// In place of `last_logits`, by the weights before they were quantised.
    original_logits: Option<Vec<f32>>,
}

impl Row {
    /// A position is turned by an angle that grows with it, and so does what rounding it does.
    fn tolerance(&self) -> f32 {
        let tokens = (self.prompt.len() + self.answer.len()) as f32;
        TOLERANCE + LOGIT * tokens * f32::EPSILON
    }

    /// Whether the token of the answer is the only right one.
    fn is_clear(&self, ix: usize) -> bool {
        self.margins[ix] > 2.0 * self.tolerance()
    }

    fn check(&self, said: &[u32], what: &str) {
        assert_eq!(said.len(), self.answer.len(), "{what}");
        for (ix, (said, expected)) in said.iter().zip(&self.answer).enumerate() {
            assert!(
                said == expected || !self.is_clear(ix),
                "{what}: token {ix} after {} of prompt is {said}, not {expected}",
                self.prompt.len()
            );
        }
        let unclear = (0..said.len()).filter(|ix| !self.is_clear(*ix)).count();
        assert!(
            unclear as f32 <= UNCLEAR_MAX * said.len() as f32,
            "{what}: {unclear} tokens of {} prove nothing",
            said.len()
        );
    }
}

struct Folder {
    path: PathBuf,
    name: String,
    expected: Expected,
}

impl Folder {
    fn read(path: PathBuf) -> Self {
        let expected = fs::read(path.join("expected.json")).unwrap();
        Self {
            name: path.file_name().unwrap().to_string_lossy().into_owned(),
            expected: serde_json::from_slice(&expected).unwrap(),
            path,
        }
    }

    fn is_quantised(&self) -> bool {
        let rows = &self.expected.rows;
        rows.iter().any(|row| row.original_logits.is_some())
    }
}

fn folders() -> Vec<Folder> {
    let folder = std::env::var_os("CEREUS_FAMILIES_DIR")
        .expect("run `cargo xtask test families`, which makes the models and names their folder");
    let mut paths: Vec<PathBuf> = fs::read_dir(Path::new(&folder))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.retain(|path| path.join("expected.json").is_file());
    paths.sort();
    assert!(!paths.is_empty(), "{folder:?} should hold models");
    paths.into_iter().map(Folder::read).collect()
}

fn distance(left: &[f32], right: &[f32]) -> f32 {
    assert_eq!(left.len(), right.len());
    assert!(left.iter().all(|logit| logit.is_finite()));
    let differences = left.iter().zip(right).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, f32::max)
}

/// Runs a folder by itself; its answers must be mlx-lm's. Tells how far any logit is off.
fn compare(folder: &Folder, load: Load) {
    let told = alone::ask(&folder.path, load, &folder.expected.rows);
    let mut furthest = 0.0_f32;
    let mut quantising = None;
    for (row, told) in folder.expected.rows.iter().zip(&told) {
        row.check(&told.answer, &format!("{}, {load:?}", folder.name));
        let prefill = distance(&told.prefill_logits, &row.prefill_logits);
        let last = distance(&told.last_logits, &row.last_logits);
        furthest = furthest.max(prefill).max(last);
        assert!(
            prefill.max(last) < row.tolerance(),
            "{}, {load:?}, prompt of {}: a logit is off by {prefill} before the answer, by {last} \
             after it",
            folder.name,
            row.prompt.len()
        );
        if let Some(original) = &row.original_logits {
            let (theirs, ours) = quantising.unwrap_or((0.0_f32, 0.0_f32));
            quantising = Some((
                theirs.max(distance(&row.last_logits, original)),
                ours.max(distance(&told.last_logits, original)),
            ));
        }
    }
    let Load { layout, quantised } = load;
    let (name, millions) = (&folder.name, folder.expected.millions);
    let errors = quantising.map(|(theirs, ours)| format!(" {ours:.5} {theirs:.5}"));
    let errors = errors.unwrap_or_default();
    println!(
        "\ncompared {name:<24} {millions:4.1} {layout:?} {quantised:?} {furthest:.1e}{errors}"
    );
    // Quantising explains what is left: computing adds no more than it does to any model.
    if let Some((theirs, ours)) = quantising {
        assert!(
            (theirs - ours).abs() < TOLERANCE,
            "{}, {load:?}: {ours} from the original weights, mlx-lm {theirs}",
            folder.name
        );
    }
}

#[test]
fn every_family_answers_as_mlx_lm_does_in_every_layout() {
    let quantised = QuantisedMatrices::Unpacked;
    for folder in folders() {
        let layouts = if folder.name.ends_with(PUBLISHED) {
            &[Layout::Packed][..]
        } else {
            &[Layout::Apart, Layout::Joined, Layout::Packed]
        };
        for &layout in layouts {
            compare(&folder, Load { layout, quantised });
        }
    }
}

#[test]
fn quantised_matrices_answer_as_mlx_lm_does_without_being_unpacked() {
    let quantised = QuantisedMatrices::Kept;
    let folders = folders();
    for folder in folders.iter().filter(|folder| folder.is_quantised()) {
        for layout in [Layout::Joined, Layout::Packed] {
            compare(folder, Load { layout, quantised });
        }
    }
}

#[test]
fn every_family_served_to_several_at_once_answers_as_mlx_lm_does() {
    for folder in folders() {
        let answers = served::ask(&folder.path, &folder.expected.rows);
        for (row, answer) in folder.expected.rows.iter().zip(answers) {
            // Nobody leads the engine here: after an unclear token both may go on in their own way.
            let clear = (0..row.answer.len()).take_while(|ix| row.is_clear(*ix));
            let end = clear.count();
            let prompt = row.prompt.len();
            assert_eq!(
                answer[..end],
                row.answer[..end],
                "{}, {prompt}",
                folder.name
            );
        }
    }
}
