//! The training loop: draw a batch, move the weights, now and then save and look.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use cereus_engine::model::{Config, Model};
use indicatif::{ProgressBar, ProgressStyle};
use mlx_rs::error::Exception;
use mlx_rs::ops::indexing::take_along_axis;
use mlx_rs::ops::{add, logsumexp_axis, multiply, subtract};
use mlx_rs::transforms::{eval, value_and_grad_with_argnums};
use mlx_rs::{Array, Device, Stream, with_stream};

use crate::corpus::Corpus;
use crate::greedy::right_count;
use crate::optimiser::Optimiser;
use crate::rows::{Batch, LANES, drawn_ahead};
use crate::sums::held_back;
use crate::vocabulary::Vocabulary;
use crate::weights::{Weights, fresh};

const SAVE_EVERY: u64 = 200;
const LOOK_EVERY: u64 = 200;
const LOOK_SUMS: usize = 100;
/// The weight of the past in the loss that is shown.
const LOSS_SMOOTHING: f32 = 0.98;
const STATE_FILE: &str = "training.safetensors";

pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) steps: u64,
    pub(crate) batch_tokens: usize,
    /// Where an unfinished training is kept.
    pub(crate) work: PathBuf,
}

/// A finished or interrupted training.
pub(crate) struct Progress {
    pub(crate) weights: Weights,
    averages: BTreeMap<String, Array>,
    pub(crate) step: u64,
    pub(crate) elapsed: Duration,
    pub(crate) loss: f32,
}

impl Progress {
    pub(crate) fn fresh(config: &Config, seed: u64) -> Self {
        Self {
            weights: fresh(config, seed),
            averages: BTreeMap::new(),
            step: 0,
            elapsed: Duration::ZERO,
            loss: 0.0,
        }
    }

    /// The training that was interrupted in this folder, if its plan is the same.
    pub(crate) fn resumed(plan: &Plan) -> Result<Option<Self>> {
        let path = plan.work.join(STATE_FILE);
        if !path.exists() {
            return Ok(None);
        }
        let (arrays, notes) = Array::load_safetensors_with_metadata(&path)
            .with_context(|| format!("reading {}", path.display()))?;
        let note = |name: &str| -> Result<&str> {
            Ok(notes
                .get(name)
                .with_context(|| format!("the checkpoint lacks {name}"))?)
        };
        if note("plan")? != plan.summary() {
            bail!(
                "the checkpoint in {} is of another plan; remove it",
                plan.work.display()
            );
        }
        let (averages, weights) = arrays.into_iter().partition(|(name, _)| name.contains(':'));
        Ok(Some(Self {
            weights,
            averages,
            step: note("step")?.parse()?,
            elapsed: Duration::from_secs(note("elapsed_s")?.parse()?),
            loss: note("loss")?.parse()?,
        }))
    }

    pub(crate) fn model(&self, config: &Config) -> Result<Model> {
        Ok(Model::from_arrays(config, self.weights.clone())?)
    }

    fn save(&self, plan: &Plan) -> Result<()> {
        let notes: HashMap<String, String> = [
            ("elapsed_s", self.elapsed.as_secs().to_string()),
            ("loss", self.loss.to_string()),
            ("plan", plan.summary()),
            ("step", self.step.to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        // A crash in the middle of writing must leave the older checkpoint whole.
        let fresh = plan.work.join(format!("new-{STATE_FILE}"));
        Array::save_safetensors(self.weights.iter().chain(&self.averages), &notes, &fresh)?;
        std::fs::rename(&fresh, plan.work.join(STATE_FILE))?;
        Ok(())
    }
}

impl Plan {
    fn summary(&self) -> String {
        format!(
            "seed {} steps {} batch {}",
            self.seed, self.steps, self.batch_tokens
        )
    }
}

/// Trains from where `progress` is to the last step of the plan.
pub(crate) fn train(
    config: &Config,
    plan: &Plan,
    corpus: Arc<Corpus>,
    vocabulary: &Arc<Vocabulary>,
    mut progress: Progress,
) -> Result<Progress> {
    let batches = drawn_ahead(
        corpus,
        Arc::clone(vocabulary),
        plan.seed,
        progress.step..plan.steps,
        plan.batch_tokens,
    );
    let mut optimiser = Optimiser::new(std::mem::take(&mut progress.averages), plan.steps);
    let sums = held_back();
    let bar = ProgressBar::new(plan.steps).with_style(ProgressStyle::with_template(
        "{bar:30} {pos}/{len} steps, {msg}, {elapsed} gone, {eta} left",
    )?);
    bar.set_position(progress.step);
    bar.reset_eta();
    let device = Device::try_default()?;
    let lanes = [(); LANES].map(|()| Stream::new_with_device(&device));
    for batches in batches {
        let started = Instant::now();
        let loss = step(
            config,
            &lanes,
            &batches,
            &mut optimiser,
            progress.step,
            &mut progress.weights,
        )?;
        let kept = if progress.step == 0 {
            0.0
        } else {
            LOSS_SMOOTHING
        };
        progress.loss = kept * progress.loss + (1.0 - kept) * loss;
        progress.step += 1;
        progress.elapsed += started.elapsed();
        bar.inc(1);
        bar.set_message(format!("loss {:.4}", progress.loss));
        if progress.step.is_multiple_of(SAVE_EVERY) || progress.step == plan.steps {
            progress.averages = std::mem::take(&mut optimiser.averages);
            progress.save(plan)?;
            optimiser.averages = std::mem::take(&mut progress.averages);
        }
        if progress.step.is_multiple_of(LOOK_EVERY) {
            let right = right_count(&progress.model(config)?, vocabulary, &sums[..LOOK_SUMS])?;
            note(
                &bar,
                &format!(
                    "step {}: loss {:.4}, {right} of {LOOK_SUMS} held-back sums right, {} s",
                    progress.step,
                    progress.loss,
                    progress.elapsed.as_secs(),
                ),
            );
        }
    }
    bar.finish();
    Ok(progress)
}

/// Writes the weights as a model folder has them.
pub(crate) fn publish(weights: &Weights, folder: &Path) -> Result<()> {
    let notes: HashMap<String, String> = [("format".to_owned(), "pt".to_owned())].into();
    Array::save_safetensors(weights, &notes, folder.join("model.safetensors"))?;
    Ok(())
}

fn step(
    config: &Config,
    lanes: &[Stream; LANES],
    batches: &[Batch; LANES],
    optimiser: &mut Optimiser,
    step: u64,
    weights: &mut Weights,
) -> Result<f32> {
    let spoken_count: usize = batches.iter().map(|batch| batch.places.len()).sum();
    let mut loss = Array::from_f32(0.0);
    let mut gradients: Vec<Array> = Vec::new();
    for (lane, batch) in lanes.iter().zip(batches) {
        let (value, parts) = with_stream(lane, || {
            differentiated(config, batch, spoken_count, weights)
        })?;
        loss = add(&loss, &value)?;
        gradients = if gradients.is_empty() {
            parts
        } else {
            gradients
                .iter()
                .zip(&parts)
                .map(|(sum, part)| add(sum, part))
                .collect::<Result<_, _>>()?
        };
    }
    optimiser.apply(step, lanes, weights, &gradients)?;
    eval(
        weights
            .values()
            .chain(optimiser.averages.values())
            .chain([&loss]),
    )?;
    Ok(loss.item_exact::<f32>())
}

/// A batch's share of the mean loss over all spoken tokens, and its gradient.
fn differentiated(
    config: &Config,
    batch: &Batch,
    spoken_count: usize,
    weights: &Weights,
) -> Result<(Array, Vec<Array>)> {
    let tokens = Array::from_slice(&batch.tokens, &[batch.rows, batch.length]);
    let count = i32::try_from(batch.places.len())?;
    let places = Array::from_slice(&batch.places, &[count]);
    let targets = Array::from_slice(&batch.targets, &[count, 1]);
    let share = Array::from_f32(1.0 / spoken_count as f32);
    let names: Vec<String> = weights.keys().cloned().collect();
    let loss = |arrays: &[Array]| -> Result<Vec<Array>, Exception> {
        let named = names.iter().cloned().zip(arrays.iter().cloned()).collect();
        let model = Model::from_arrays(config, named).expect("the weights are the config's own");
        let logits = model.logits(&tokens)?.reshape(&[-1, config.vocab_size])?;
        let spoken = logits.take_axis(&places, 0)?;
        let chosen = take_along_axis(&spoken, &targets, -1)?;
        let surprise = subtract(logsumexp_axis(&spoken, -1, true)?, chosen)?;
        Ok(vec![multiply(surprise.sum(None)?, &share)?])
    };
    let arrays: Vec<Array> = weights.values().cloned().collect();
    let indices: Vec<i32> = (0..i32::try_from(arrays.len())?).collect();
    let (mut value, gradients) = value_and_grad_with_argnums(loss, indices.as_slice())(&arrays)?;
    Ok((value.remove(0), gradients))
}

/// A line that survives the bar, also where no terminal shows one.
fn note(bar: &ProgressBar, line: &str) {
    if bar.is_hidden() {
        println!("{line}");
    } else {
        bar.println(line);
    }
}
