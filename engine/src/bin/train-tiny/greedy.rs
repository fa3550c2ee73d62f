//! Greedy answers, many questions at a time and without caches: how the trainer watches itself.
//! The engine's tests ask again through the path that serves.

use anyhow::Result;
use cereus_engine::model::Model;
use mlx_rs::Array;
use mlx_rs::ops::indexing::{argmax_axis, take_along_axis};

use crate::sums::Sum;
use crate::vocabulary::Vocabulary;

/// Long enough for every answer that the trainer checks.
const ANSWER_TOKENS_MAX: usize = 128;

/// How many of the sums are right.
pub(crate) fn right_count(model: &Model, vocabulary: &Vocabulary, sums: &[Sum]) -> Result<usize> {
    let questions: Vec<String> = sums.iter().map(|sum| sum.question()).collect();
    let answers = answers(model, vocabulary, &questions)?;
    Ok(sums
        .iter()
        .zip(answers)
        .filter(|(sum, answer)| *answer == sum.answer())
        .count())
}

/// The answer to each question, cut at the end of the turn.
pub(crate) fn answers<T: AsRef<str>>(
    model: &Model,
    vocabulary: &Vocabulary,
    questions: &[T],
) -> Result<Vec<String>> {
    let mut rows: Vec<Vec<u32>> = questions
        .iter()
        .map(|text| vocabulary.question(text.as_ref()))
        .collect();
    let starts: Vec<usize> = rows.iter().map(Vec::len).collect();
    let mut is_done = vec![false; rows.len()];
    for _ in 0..ANSWER_TOKENS_MAX {
        let next = next_tokens(model, &rows, vocabulary.end_of_text)?;
        for ((row, done), token) in rows.iter_mut().zip(&mut is_done).zip(next) {
            *done |= token == vocabulary.turn_end || token == vocabulary.end_of_text;
            if !*done {
                row.push(token);
            }
        }
        if is_done.iter().all(|&done| done) {
            break;
        }
    }
    Ok(rows
        .iter()
        .zip(&starts)
        .map(|(row, &start)| vocabulary.decode(&row[start..]))
        .collect())
}

/// The likeliest token after each row. Rows are padded behind their end, where causal attention
/// cannot see.
fn next_tokens(model: &Model, rows: &[Vec<u32>], pad: u32) -> Result<Vec<u32>> {
    let length = rows.iter().map(Vec::len).max().expect("there is a row");
    let mut tokens = Vec::with_capacity(rows.len() * length);
    let mut ends = Vec::with_capacity(rows.len());
    for row in rows {
        ends.push(u32::try_from(row.len() - 1)?);
        tokens.extend_from_slice(row);
        tokens.resize(ends.len() * length, pad);
    }
    let count = i32::try_from(rows.len())?;
    let tokens = Array::from_slice(&tokens, &[count, i32::try_from(length)?]);
    let likeliest = argmax_axis(model.logits(&tokens)?, -1, false)?;
    let next = take_along_axis(likeliest, Array::from_slice(&ends, &[count, 1]), 1)?;
    next.eval()?;
    Ok(next.as_slice::<u32>().to_vec())
}
