//! Trains `engine/models/tiny`: generates the text, learns the tokenizer, trains the weights, and
//! writes the folder with a README of what was measured. Run by `cargo xtask train-tiny`.

mod corpus;
mod dice;
mod greedy;
mod optimiser;
mod report;
mod rows;
mod shape;
mod sums;
mod training;
mod vocabulary;
mod weights;
mod words;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::Parser;

use crate::corpus::{Corpus, Message, Reach};
use crate::dice::Dice;
use crate::training::{Plan, Progress};
use crate::vocabulary::Vocabulary;

/// Train the tiny model on text that the project generates itself.
#[derive(Parser)]
struct Arguments {
    /// Everything that is drawn is drawn from this.
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// How often the weights move.
    #[arg(long, default_value_t = 1_300)]
    steps: u64,
    /// Tokens in one step, about.
    #[arg(long, default_value_t = 3_072)]
    batch_tokens: usize,
    /// The model folder to write.
    #[arg(long, default_value = "engine/models/tiny")]
    out: PathBuf,
    /// Where an unfinished training is kept; it is resumed when found.
    #[arg(long, default_value = "target/train-tiny")]
    work: PathBuf,
    /// Only print so many conversations of the corpus.
    #[arg(long)]
    show: Option<u32>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(count) = arguments.show {
        show(arguments.seed, count);
        return Ok(());
    }
    for folder in [&arguments.out, &arguments.work] {
        std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    let plan = Plan {
        seed: arguments.seed,
        steps: arguments.steps,
        batch_tokens: arguments.batch_tokens,
        work: arguments.work,
    };
    let corpus = Arc::new(Corpus::load());
    println!("learning the tokenizer");
    let vocabulary = Arc::new(Vocabulary::learn(&corpus, plan.seed, &arguments.out)?);
    let config = shape::write(&vocabulary, &arguments.out)?;
    let progress = match Progress::resumed(&plan)? {
        Some(progress) => {
            println!("resuming at step {}", progress.step);
            progress
        }
        None => Progress::fresh(&config, plan.seed),
    };
    let progress = training::train(&config, &plan, Arc::clone(&corpus), &vocabulary, progress)?;
    training::publish(&progress.weights, &arguments.out)?;
    let report = report::measured(&config, &plan, &corpus, &vocabulary, &progress)?;
    std::fs::write(arguments.out.join("README.md"), &report)?;
    println!("{report}");
    Ok(())
}

fn show(seed: u64, count: u32) {
    let corpus = Corpus::load();
    let mut dice = Dice::new(seed);
    for _ in 0..count {
        for Message { role, text } in corpus.conversation(&mut dice, Reach::Short) {
            println!("{role}: {text}");
        }
        println!();
    }
}
