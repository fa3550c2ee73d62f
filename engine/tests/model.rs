//! The network: what it computes does not depend on how the work is cut up, and a folder that is
//! not what it says is refused by name.
#![cfg(feature = "mlx")]

mod support;

use std::collections::BTreeMap;
use std::fs;

use cereus_engine::model::{Config, Model, ModelError, Output, RowCache, RowStep};
use mlx_rs::Array;
use mlx_rs::ops::indexing::IndexOp;
use mlx_rs::transforms::value_and_grad_with_argnums;
use support::truth::Truth;
use support::{FAMILIES, QWEN3, Stream, arrays, config, model, write_folder};

fn prompt(model: &Model, length: usize, seed: u64) -> Vec<u32> {
    let vocab = model.config().vocab_size.unsigned_abs();
    let mut stream = Stream(seed);
    (0..length).map(|_| stream.below(vocab)).collect()
}

fn whole_logits(model: &Model, tokens: &[u32]) -> Vec<Vec<f32>> {
    let count = i32::try_from(tokens.len()).unwrap();
    let logits = model
        .logits(&Array::from_slice(tokens, &[1, count]))
        .unwrap();
    (0..count)
        .map(|ix| logits.index((0, ix)).to_vec_exact::<f32>().unwrap())
        .collect()
}

fn run(model: &Model, cache: &mut RowCache, tokens: &[u32]) -> Vec<f32> {
    let mut rows = [RowStep {
        cache,
        tokens,
        output: Output::Logits,
    }];
    model
        .step(&mut rows)
        .unwrap()
        .unwrap()
        .index(0)
        .to_vec_exact::<f32>()
        .unwrap()
}

fn argmax(logits: &[f32]) -> u32 {
    let best = logits
        .iter()
        .enumerate()
        .max_by(|a, b| a.1.total_cmp(b.1))
        .unwrap();
    u32::try_from(best.0).unwrap()
}

fn greedy_alone(model: &Model, prompt: &[u32], count: usize) -> Vec<u32> {
    let mut cache = RowCache::new(model.config());
    let mut next = argmax(&run(model, &mut cache, prompt));
    let mut answer = vec![next];
    while answer.len() < count {
        next = argmax(&run(model, &mut cache, &[next]));
        answer.push(next);
    }
    answer
}

/// What a model of these weights says to these tokens in double precision.
fn truth(json: &str, seed: u64, tokens: &[u32]) -> Truth {
    let config = config(json);
    Truth::of(&config, &arrays(&config, seed), tokens)
}

/// ENG-07.
#[test]
fn token_by_token_and_in_pieces_give_the_logits_of_the_whole() {
    for json in FAMILIES {
        let model = model(json, 3);
        let tokens = prompt(&model, 23, 5);
        let truth = truth(json, 3, &tokens);
        for (ix, logits) in whole_logits(&model, &tokens).iter().enumerate() {
            truth.check(ix + 1, logits, json);
        }
        for piece in [1, 4, 7, 23] {
            let mut cache = RowCache::new(model.config());
            let mut end = 0;
            for part in tokens.chunks(piece) {
                end += part.len();
                truth.check(end, &run(&model, &mut cache, part), json);
            }
            assert_eq!(cache.length(), 23);
        }
    }
}

#[test]
fn a_row_grows_past_its_first_room() {
    let model = model(QWEN3, 4);
    let tokens = prompt(&model, 300, 6);
    let truth = truth(QWEN3, 4, &tokens);
    let mut cache = RowCache::new(model.config());
    run(&model, &mut cache, &tokens[..250]);
    for end in [255, 256, 257, 300] {
        let start = usize::try_from(cache.length()).unwrap();
        truth.check(end, &run(&model, &mut cache, &tokens[start..end]), QWEN3);
    }
}

/// ENG-07.
#[test]
fn greedy_answers_do_not_depend_on_who_else_is_in_the_batch() {
    for json in FAMILIES {
        let model = model(json, 8);
        let prompts: Vec<Vec<u32>> = (0..6)
            .map(|row| prompt(&model, 3 + 5 * row, 100 + row as u64))
            .collect();
        let alone: Vec<Vec<u32>> = prompts
            .iter()
            .map(|prompt| greedy_alone(&model, prompt, 20))
            .collect();

        // Row `r` joins at step `r`, its prompt in the same step as the others' decoding. Each goes on
        // with what it said alone, whatever it says here: where two tokens are as likely as rounding
        // can tell, either is right.
        let mut caches: Vec<RowCache> = prompts
            .iter()
            .map(|_| RowCache::new(model.config()))
            .collect();
        let mut answers: Vec<Vec<u32>> = vec![Vec::new(); prompts.len()];
        let truths = prompts.iter().zip(&alone).map(|(prompt, answer)| {
            let tokens = [&prompt[..], answer].concat();
            truth(json, 8, &tokens)
        });
        let truths: Vec<Truth> = truths.collect();
        for step in 0..25 {
            let mut rows = Vec::new();
            let mut row_ixs = Vec::new();
            let pending: Vec<Vec<u32>> = answers
                .iter()
                .zip(&prompts)
                .zip(&alone)
                .map(|((answer, prompt), alone)| match answer.len() {
                    0 => prompt.clone(),
                    said => vec![alone[said - 1]],
                })
                .collect();
            for (row_ix, cache) in caches.iter_mut().enumerate() {
                if row_ix <= step && answers[row_ix].len() < 20 {
                    row_ixs.push(row_ix);
                    rows.push(RowStep {
                        cache,
                        tokens: &pending[row_ix],
                        output: Output::Logits,
                    });
                }
            }
            let logits = model.step(&mut rows).unwrap().unwrap();
            for (place, &row_ix) in row_ixs.iter().enumerate() {
                let place = i32::try_from(place).unwrap();
                let row = logits.index(place).to_vec_exact::<f32>().unwrap();
                answers[row_ix].push(argmax(&row));
            }
        }
        let mut clear = 0;
        for (row, truth) in truths.iter().enumerate() {
            for (ix, (token, alone)) in answers[row].iter().zip(&alone[row]).enumerate() {
                if truth.is_clear(prompts[row].len() + ix) {
                    assert_eq!(token, alone, "row {row}, token {ix}: {json}");
                    clear += 1;
                }
            }
        }
        assert!(clear > 100, "only {clear} of 120 tokens are clear: {json}");
    }
}

#[test]
fn a_piece_that_asks_for_no_logits_yields_none_and_is_remembered() {
    let model = model(QWEN3, 3);
    let tokens = prompt(&model, 9, 2);
    let truth = truth(QWEN3, 3, &tokens);
    let mut cache = RowCache::new(model.config());
    let mut rows = [RowStep {
        cache: &mut cache,
        tokens: &tokens[..5],
        output: Output::Nothing,
    }];
    assert!(model.step(&mut rows).unwrap().is_none());
    truth.check(9, &run(&model, &mut cache, &tokens[5..]), QWEN3);
}

/// The mean loss of four tokens, as a function of a family's tensors, and its gradients.
fn loss_and_gradients(config: &Config, named: &BTreeMap<String, Array>) -> (f32, Vec<Array>) {
    let names: Vec<&String> = named.keys().collect();
    let tokens = Array::from_slice(&[5_u32, 9, 3, 7], &[1, 4]);
    let targets = Array::from_slice(&[9_u32, 3, 7, 1], &[1, 4, 1]);
    let loss = |inputs: &[Array]| {
        let pairs = names.iter().map(|name| (*name).clone());
        let arrays: BTreeMap<String, Array> = pairs.zip(inputs.iter().cloned()).collect();
        let logits = Model::from_arrays(config, arrays)
            .unwrap()
            .logits(&tokens)?;
        let right = logits.take_along_axis(&targets, -1)?.squeeze_axes(&[-1])?;
        let loss = logits.logsumexp_axis(-1, false)?.subtract(right)?;
        Ok(vec![loss.mean(false)?])
    };
    let inputs: Vec<Array> = named.values().cloned().collect();
    let argnums: Vec<i32> = (0..i32::try_from(inputs.len()).unwrap()).collect();
    let (loss, gradients) = value_and_grad_with_argnums(loss, argnums.as_slice())(&inputs).unwrap();
    assert_eq!(gradients.len(), inputs.len());
    (loss[0].item_exact::<f32>(), gradients)
}

#[test]
fn gradients_predict_what_a_small_step_does_in_every_family() {
    /// Small enough that the loss is nearly straight, and that no token changes its experts.
    const FALL: f32 = 0.01;
    for json in FAMILIES {
        let config = config(json);
        let mut named = arrays(&config, 11);
        let (before, gradients) = loss_and_gradients(&config, &named);
        let squares = gradients.iter().map(|gradient| {
            let sum = (gradient * gradient).sum(false).unwrap();
            sum.item_exact::<f32>()
        });
        let step = FALL / squares.sum::<f32>();
        for (value, gradient) in named.values_mut().zip(&gradients) {
            *value = &*value - gradient * Array::from_f32(step);
        }
        let (after, _) = loss_and_gradients(&config, &named);
        let fall = before - after;
        assert!(
            (fall - FALL).abs() < 0.2 * FALL,
            "the loss fell by {fall}, not by {FALL}: {json}"
        );
    }
}

#[test]
fn a_folder_loads_whole_and_in_shards_to_the_same_model() {
    let config = config(QWEN3);
    let arrays = arrays(&config, 21);
    let single = tempfile::tempdir().unwrap();
    write_folder(single.path(), QWEN3, &arrays);

    let sharded = tempfile::tempdir().unwrap();
    fs::write(sharded.path().join("config.json"), QWEN3).unwrap();
    let mut map = BTreeMap::new();
    for (shard, parity) in [
        ("model-00001-of-00002.safetensors", 0),
        ("b.safetensors", 1),
    ] {
        let part: BTreeMap<_, _> = arrays
            .iter()
            .enumerate()
            .filter(|(ix, _)| ix % 2 == parity)
            .map(|(_, a)| a)
            .collect();
        Array::save_safetensors(part.iter(), None, sharded.path().join(shard)).unwrap();
        map.extend(part.keys().map(|name| ((*name).clone(), shard)));
    }
    let index = serde_json::json!({ "weight_map": map }).to_string();
    fs::write(sharded.path().join("model.safetensors.index.json"), index).unwrap();

    let left = Model::load(single.path()).unwrap();
    let right = Model::load(sharded.path()).unwrap();
    let tokens = prompt(&left, 8, 1);
    assert_eq!(whole_logits(&left, &tokens), whole_logits(&right, &tokens));
}

fn refusal(change: impl FnOnce(&mut BTreeMap<String, Array>)) -> ModelError {
    let mut arrays = arrays(&config(QWEN3), 1);
    change(&mut arrays);
    let folder = tempfile::tempdir().unwrap();
    write_folder(folder.path(), QWEN3, &arrays);
    Model::load(folder.path()).unwrap_err()
}

#[test]
fn a_missing_tensor_is_named_with_its_shape() {
    let name = "model.layers.1.self_attn.k_proj.weight";
    let error = refusal(|arrays| drop(arrays.remove(name)));
    assert_eq!(
        error.to_string(),
        format!("tensor {name} is missing; expected shape [32, 48]")
    );
}

#[test]
fn a_wrong_shape_is_named_with_both_shapes() {
    let name = "model.layers.0.mlp.down_proj.weight";
    let wrong = Array::from_slice(&[0.0_f32; 6], &[2, 3]);
    let error = refusal(|arrays| drop(arrays.insert(name.to_owned(), wrong)));
    assert_eq!(
        error.to_string(),
        format!("tensor {name} has shape [2, 3]; expected [48, 96]")
    );
}

#[test]
fn a_tensor_of_another_model_is_named() {
    let name = "model.layers.9.mlp.down_proj.weight";
    let stranger = Array::from_slice(&[0.0_f32; 6], &[2, 3]);
    let error = refusal(|arrays| drop(arrays.insert(name.to_owned(), stranger)));
    assert!(matches!(error, ModelError::TensorUnknown { name: named } if named == name));
}

#[test]
fn integer_weights_are_refused_by_name() {
    let name = "model.norm.weight";
    let wrong = Array::from_slice(&[0_i32; 48], &[48]);
    let error = refusal(|arrays| drop(arrays.insert(name.to_owned(), wrong)));
    assert!(matches!(error, ModelError::TensorType { name: named, .. } if named == name));
}

#[test]
fn a_file_cut_short_anywhere_is_damaged_and_nothing_worse() {
    let folder = tempfile::tempdir().unwrap();
    write_folder(folder.path(), QWEN3, &arrays(&config(QWEN3), 1));
    let path = folder.path().join("model.safetensors");
    let whole = fs::read(&path).unwrap();
    for length in [0, 4, 8, 9, 200, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..length]).unwrap();
        let error = Model::load(folder.path()).unwrap_err();
        assert!(
            matches!(error, ModelError::Damaged { .. }),
            "{length} bytes: {error}"
        );
    }
}

#[test]
fn an_index_that_points_out_of_the_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.json"), QWEN3).unwrap();
    let index = r#"{"weight_map": {"model.norm.weight": "../other/model.safetensors"}}"#;
    fs::write(folder.path().join("model.safetensors.index.json"), index).unwrap();
    let error = Model::load(folder.path()).unwrap_err();
    assert!(error.to_string().contains("outside the folder"), "{error}");
}

#[test]
fn an_empty_folder_says_what_is_absent() {
    let folder = tempfile::tempdir().unwrap();
    let error = Model::load(folder.path()).unwrap_err().to_string();
    assert!(error.contains("config.json"), "{error}");
    fs::write(folder.path().join("config.json"), QWEN3).unwrap();
    assert!(matches!(
        Model::load(folder.path()).unwrap_err(),
        ModelError::NoWeights
    ));
}
