#![allow(clippy::disallowed_methods, reason = "the slow way asks the library")]

use proptest::prelude::*;

use super::*;

fn warm(temperature: f32, seed: u64) -> Sampling {
    Sampling {
        temperature,
        seed,
        ..Sampling::greedy()
    }
}

fn choose(sampling: &Sampling, step: u32, logits: &[f32]) -> Option<u32> {
    choose_after(sampling, &[], &[], step, logits)
}

fn choose_after(
    sampling: &Sampling,
    prompt: &[u32],
    answer: &[u32],
    step: u32,
    logits: &[f32],
) -> Option<u32> {
    let mut history = History::new(sampling, prompt);
    answer.iter().for_each(|&token| history.push(token));
    let sample = Sample {
        sampling,
        history: &history,
        allowed: None,
        barred: &[],
        step,
    };
    let chosen = Sampler::default().choose(&sample, logits);
    chosen.map(|chosen| chosen.token)
}

fn choose_among(sampling: &Sampling, allowed: &[u32], step: u32, logits: &[f32]) -> Option<u32> {
    let sample = Sample {
        sampling,
        history: &History::default(),
        allowed: Some(TokenMask(allowed)),
        barred: &[],
        step,
    };
    let chosen = Sampler::default().choose(&sample, logits);
    chosen.map(|chosen| chosen.token)
}

/// The logits after penalties, the slow way: every token asks every question.
fn penalised_slowly(
    sampling: &Sampling,
    prompt: &[u32],
    answer: &[u32],
    logits: &[f32],
) -> Vec<f32> {
    let said: Vec<u32> = prompt.iter().chain(answer).copied().collect();
    let window = sampling
        .repetition_window
        .map_or(said.len(), |window| window.get() as usize);
    let window = &said[said.len().saturating_sub(window)..];
    let adjust = |(token, &logit): (u32, &f32)| {
        let mut logit = logit;
        for (biased, bias) in &sampling.logit_bias {
            if *biased == token {
                logit += bias;
            }
        }
        if window.contains(&token) {
            if logit > 0.0 {
                logit /= sampling.repetition_penalty;
            } else {
                logit *= sampling.repetition_penalty;
            }
        }
        let count = answer.iter().filter(|&&other| other == token).count();
        if count > 0 {
            logit -= sampling.frequency_penalty * count as f32;
            logit -= sampling.presence_penalty;
        }
        logit
    };
    (0..).zip(logits).map(adjust).collect()
}

/// The tokens that the filters keep, the slow way: for each the tokens ahead of it. Absent when
/// rounding could decide.
fn kept_slowly(sampling: &Sampling, logits: &[f32]) -> Option<Vec<u32>> {
    let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weights: Vec<f64> = logits
        .iter()
        .map(|&logit| f64::from((logit - best) / sampling.temperature).exp())
        .collect();
    let total: f64 = weights.iter().sum();
    let mut kept = vec![];
    for (ix, &weight) in weights.iter().enumerate() {
        let is_ahead = |&(other, &it): &(usize, &f64)| it > weight || (it == weight && other < ix);
        let ahead: Vec<f64> = weights
            .iter()
            .enumerate()
            .filter(is_ahead)
            .map(|it| *it.1)
            .collect();
        let preceding = ahead.iter().sum::<f64>() / total;
        if (preceding - f64::from(sampling.top_p)).abs() < 1e-4
            || (weight - f64::from(sampling.min_p)).abs() < 1e-4
        {
            return None;
        }
        let is_ranked = sampling.top_k == 0 || ahead.len() < sampling.top_k as usize;
        let is_in_nucleus = sampling.top_p >= 1.0 || preceding <= f64::from(sampling.top_p);
        let is_likely = weight >= f64::from(sampling.min_p);
        if ahead.is_empty() || (is_ranked && is_in_nucleus && is_likely) {
            kept.push(u32::try_from(ix).unwrap());
        }
    }
    Some(kept)
}

fn kept_quickly(sampling: &Sampling, logits: &[f32]) -> Vec<u32> {
    let best = filter::likeliest(logits).unwrap();
    let (mut values, mut candidates) = (logits.to_vec(), vec![]);
    let sharpness = sampling.temperature.recip();
    let total = weights::exponentials(&mut values, best.value, sharpness, &mut vec![]);
    filter::keep(sampling, &values, total, &mut candidates);
    assert_eq!(
        candidates[0].token, best.token,
        "the best token is kept, and first"
    );
    let mut tokens: Vec<u32> = candidates.iter().map(|candidate| candidate.token).collect();
    tokens.sort_unstable();
    tokens
}

#[test]
fn greedy_takes_the_likeliest_and_the_lowest_id_among_equals() {
    let logits = [0.5, 2.0, -1.0, 2.0];
    assert_eq!(choose(&Sampling::greedy(), 0, &logits), Some(1));
    assert_eq!(choose(&warm(0.9e-5, 3), 0, &logits), Some(1));
}

#[test]
fn logits_that_are_no_numbers_yield_nothing() {
    assert_eq!(choose(&Sampling::greedy(), 0, &[f32::NAN, f32::NAN]), None);
    assert_eq!(choose(&Sampling::greedy(), 0, &[f32::NEG_INFINITY]), None);
    assert_eq!(choose(&warm(1.0, 1), 0, &[f32::INFINITY, 0.0]), None);
    assert_eq!(choose(&Sampling::greedy(), 0, &[]), None);
    assert_eq!(choose(&warm(1.0, 1), 0, &[f32::NAN, 0.0]), Some(1));
}

#[test]
fn shares_follow_the_softmax_of_the_tempered_logits() {
    // Weights 1, 2 and 4 at temperature two.
    let logits = [0.0, 2.0 * 2.0_f32.ln(), 2.0 * 4.0_f32.ln()];
    // The filter that keeps all must not change the shares either.
    for top_k in [0, 3] {
        let sampling = Sampling {
            top_k,
            ..warm(2.0, 77)
        };
        let mut counts = [0_u32; 3];
        for step in 0..14_000 {
            counts[choose(&sampling, step, &logits).unwrap() as usize] += 1;
        }
        for (count, share) in counts.iter().zip([2_000_u32, 4_000, 8_000]) {
            assert!(count.abs_diff(share) < 250, "{counts:?}");
        }
    }
}

#[test]
fn a_vocabulary_of_many_blocks_is_drawn_from_as_a_small_one_is() {
    // One likely token in each third, the rest together a quarter.
    let mut logits = vec![0.0_f32; 9_000];
    for likely in [10, 4_000, 8_999] {
        logits[likely] = 9_000.0_f32.ln();
    }
    let mut counts = [0_u32; 4];
    for step in 0..8_000 {
        let place = match choose(&warm(1.0, 4), step, &logits).unwrap() {
            10 => 0,
            4_000 => 1,
            8_999 => 2,
            _ => 3,
        };
        counts[place] += 1;
    }
    assert!(
        counts.iter().all(|count| count.abs_diff(2_000) < 200),
        "{counts:?}"
    );
}

#[test]
fn top_p_of_zero_keeps_only_the_best() {
    let sampling = Sampling {
        top_p: 0.0,
        ..warm(2.0, 1)
    };
    for step in 0..100 {
        assert_eq!(choose(&sampling, step, &[0.3, 0.3, 0.2]), Some(0));
    }
}

#[test]
fn top_p_keeps_the_token_that_crosses_it() {
    // Shares 0.4, 0.3, 0.2, 0.1.
    let logits = [4.0_f32, 3.0, 2.0, 1.0].map(f32::ln);
    let at = |top_p| {
        kept_quickly(
            &Sampling {
                top_p,
                ..warm(1.0, 1)
            },
            &logits,
        )
    };
    assert_eq!(at(0.39), [0]);
    assert_eq!(at(0.41), [0, 1]);
    assert_eq!(at(0.69), [0, 1]);
    assert_eq!(at(0.71), [0, 1, 2]);
    assert_eq!(at(0.95), [0, 1, 2, 3]);
}

#[test]
fn top_k_of_one_is_greedy_whatever_the_temperature() {
    let sampling = Sampling {
        top_k: 1,
        ..warm(2.0, 5)
    };
    for step in 0..100 {
        assert_eq!(choose(&sampling, step, &[0.1, 0.3, 0.2]), Some(1));
    }
}

#[test]
fn bias_comes_before_the_repetition_penalty() {
    // Raised above zero by the bias, so the penalty divides: 4 / 2 is less than 3. The other way
    // round it would be -1 * 2 + 5, exactly 3, and the lower id would win.
    let sampling = Sampling {
        logit_bias: vec![(0, 5.0)],
        repetition_penalty: 2.0,
        ..Sampling::greedy()
    };
    assert_eq!(choose_after(&sampling, &[0], &[], 0, &[-1.0, 3.0]), Some(1));
}

#[test]
fn the_repetition_penalty_comes_before_the_other_two() {
    // 6 / 2 - 2 is 1, less than 1.5; (6 - 2) / 2 would be more.
    let sampling = Sampling {
        repetition_penalty: 2.0,
        presence_penalty: 2.0,
        ..Sampling::greedy()
    };
    assert_eq!(choose_after(&sampling, &[], &[0], 1, &[6.0, 1.5]), Some(1));
}

#[test]
fn the_repetition_penalty_looks_at_the_whole_of_prompt_and_answer() {
    let sampling = Sampling {
        repetition_penalty: 2.0,
        ..Sampling::greedy()
    };
    let prompt = [&[0][..], &[2; 200]].concat();
    assert_eq!(
        choose_after(&sampling, &prompt, &[2; 200], 200, &[3.0, 2.0, 0.0]),
        Some(1)
    );
}

#[test]
fn the_repetition_penalty_looks_no_further_back_than_the_window_that_was_asked_for() {
    let sampling = Sampling {
        repetition_penalty: 2.0,
        repetition_window: NonZeroU32::new(64),
        ..Sampling::greedy()
    };
    let logits = [3.0, 2.0, 0.0];
    assert_eq!(
        choose_after(&sampling, &[0], &[2; 63], 63, &logits),
        Some(1)
    );
    assert_eq!(
        choose_after(&sampling, &[0], &[2; 64], 64, &logits),
        Some(0)
    );
    assert_eq!(
        choose_after(&sampling, &[0; 80], &[2; 64], 64, &logits),
        Some(0)
    );
}

#[test]
fn frequency_counts_the_answer_and_not_the_prompt() {
    let sampling = Sampling {
        frequency_penalty: 0.6,
        ..Sampling::greedy()
    };
    let logits = [2.0, 1.0];
    assert_eq!(choose_after(&sampling, &[0; 9], &[0], 1, &logits), Some(0));
    assert_eq!(choose_after(&sampling, &[], &[0, 0], 2, &logits), Some(1));
}

#[test]
fn a_constraint_outweighs_any_bias() {
    let sampling = Sampling {
        logit_bias: vec![(0, 100.0)],
        ..Sampling::greedy()
    };
    assert_eq!(
        choose_among(&sampling, &[0b110], 0, &[0.0, 1.0, 2.0, 9.0]),
        Some(2)
    );
    assert_eq!(choose_among(&sampling, &[0], 0, &[0.0, 1.0]), None);
}

#[test]
fn filters_see_only_what_a_constraint_leaves() {
    // Without the constraint before them, top-k and top-p would keep the forbidden best alone.
    for filtered in [
        Sampling {
            top_k: 1,
            ..warm(1.0, 1)
        },
        Sampling {
            top_p: 0.1,
            ..warm(1.0, 1)
        },
        Sampling {
            min_p: 1.0,
            ..warm(1.0, 1)
        },
    ] {
        assert_eq!(
            choose_among(&filtered, &[0b011], 0, &[1.0, 5.0, 50.0]),
            Some(1)
        );
    }
}

#[test]
fn a_mask_shorter_than_the_vocabulary_forbids_the_rest() {
    let mut logits = vec![0.0; 100];
    logits[99] = 5.0;
    logits[40] = 1.0;
    assert_eq!(
        choose_among(&Sampling::greedy(), &[u32::MAX, 1 << 8], 0, &logits),
        Some(40)
    );
}

#[test]
fn log_probabilities_are_those_of_the_raw_logits() {
    let sampling = Sampling {
        logit_bias: vec![(0, 100.0)],
        top_logprobs: Some(2),
        ..warm(0.0, 1)
    };
    let sample = Sample {
        sampling: &sampling,
        history: &History::default(),
        allowed: None,
        barred: &[],
        step: 0,
    };
    let logits = [1.0_f32, 2.0, 5.0, f32::NEG_INFINITY].map(f32::ln);
    let chosen = Sampler::default().choose(&sample, &logits[..3]).unwrap();
    assert_eq!(chosen.token, 0);
    let logprobs = chosen.logprobs.unwrap();
    let near = |value: f32, share: f32| (value - share.ln()).abs() < 1e-5;
    assert!(near(logprobs.chosen, 0.125), "{logprobs:?}");
    assert_eq!((logprobs.top[0].0, logprobs.top[1].0), (2, 1));
    assert!(near(logprobs.top[0].1, 0.625) && near(logprobs.top[1].1, 0.25));
    // The bias alone made it be chosen: it is one more than were asked for.
    assert_eq!(logprobs.top[2..], [(0, logprobs.chosen)]);
}

#[test]
fn the_chosen_token_is_told_once_among_the_likeliest_and_not_where_none_are_asked_for() {
    let told = |count: u8, bias: f32| {
        let sampling = Sampling {
            logit_bias: vec![(3, bias)],
            top_logprobs: Some(count),
            ..Sampling::greedy()
        };
        let sample = Sample {
            sampling: &sampling,
            history: &History::default(),
            allowed: None,
            barred: &[],
            step: 0,
        };
        let chosen = Sampler::default().choose(&sample, &[1.0, 4.0, 3.0, 2.0]);
        let top = chosen.unwrap().logprobs.unwrap().top;
        top.into_iter().map(|(token, _)| token).collect::<Vec<_>>()
    };
    assert_eq!(told(2, 0.0), [1, 2]);
    assert_eq!(told(2, 100.0), [1, 2, 3]);
    assert_eq!(told(3, 100.0), [1, 2, 3]);
    assert!(told(0, 100.0).is_empty());
}

#[test]
fn a_probability_of_zero_has_a_logarithm_that_can_be_written() {
    let sampling = Sampling {
        top_logprobs: Some(2),
        ..Sampling::greedy()
    };
    let sample = Sample {
        sampling: &sampling,
        history: &History::default(),
        allowed: Some(TokenMask(&[0b10])),
        barred: &[],
        step: 0,
    };
    let mut sampler = Sampler::default();
    let logprobs = sampler
        .choose(&sample, &[0.0, f32::MIN])
        .unwrap()
        .logprobs
        .unwrap();
    assert!(logprobs.chosen.is_finite());
    assert!(logprobs.top.iter().all(|(_, logprob)| logprob.is_finite()));
}

#[test]
fn the_exponential_is_that_of_the_library() {
    for step in 0..87_000 {
        let x = -(step as f32) / 1_000.0;
        let exact = f64::from(x).exp();
        let error = (f64::from(weights::exp(x)) - exact).abs() / exact;
        assert!(error < 1e-5, "{x}: {error}");
    }
    assert_eq!(weights::exp(0.0), 1.0);
    assert_eq!(weights::exp(-100.0), 0.0);
    assert_eq!(weights::exp(f32::NEG_INFINITY), 0.0);
    assert_eq!(weights::exp(f32::NAN), 0.0);
}

prop_compose! {
    fn any_sampling()(
        temperature in 0.05_f32..2.0,
        top_p in prop_oneof![Just(1.0_f32), 0.0_f32..1.0],
        top_k in prop_oneof![Just(0_u32), 1_u32..80],
        min_p in prop_oneof![Just(0.0_f32), 0.0_f32..1.0],
        repetition_penalty in prop_oneof![Just(1.0_f32), 0.5_f32..2.0],
        repetition_window in prop_oneof![Just(0_u32), 1_u32..40],
        frequency_penalty in prop_oneof![Just(0.0_f32), -2.0_f32..2.0],
        presence_penalty in prop_oneof![Just(0.0_f32), -2.0_f32..2.0],
        logit_bias in prop::collection::vec((0_u32..70, -20.0_f32..20.0), 0..4),
        seed: u64,
    ) -> Sampling {
        Sampling {
            temperature, top_p, top_k, min_p, repetition_penalty,
            repetition_window: NonZeroU32::new(repetition_window),
            frequency_penalty, presence_penalty, logit_bias, seed, top_logprobs: None,
        }
    }
}

proptest! {
    /// ENG-08.
    #[test]
    fn a_draw_depends_on_seed_step_and_logits_and_on_nothing_the_sampler_did_before(
        sampling in any_sampling(),
        other in any_sampling(),
        step: u32,
        logits in prop::collection::vec(-20.0_f32..20.0, 1..600),
        before in prop::collection::vec(-20.0_f32..20.0, 1..600),
    ) {
        let history = History::default();
        let sample = Sample { sampling: &sampling, history: &history, allowed: None, barred: &[], step };
        let alone = Sampler::default().choose(&sample, &logits).unwrap();
        prop_assert!((alone.token as usize) < logits.len());
        let mut used = Sampler::default();
        let neighbour = Sample { sampling: &other, step: step / 2, ..sample };
        used.choose(&neighbour, &before).unwrap();
        prop_assert_eq!(used.choose(&sample, &logits), Some(alone));
    }

    #[test]
    fn penalties_are_those_of_the_slow_way(
        sampling in any_sampling(),
        prompt in prop::collection::vec(0_u32..70, 0..90),
        answer in prop::collection::vec(0_u32..70, 0..90),
        logits in prop::collection::vec(-20.0_f32..20.0, 70),
    ) {
        let mut history = History::new(&sampling, &prompt);
        answer.iter().for_each(|&token| history.push(token));
        let mut quick = logits.clone();
        history::penalise(&sampling, &history, &mut quick);
        let slow = penalised_slowly(&sampling, &prompt, &answer, &logits);
        for (quick, slow) in quick.iter().zip(&slow) {
            prop_assert!((quick - slow).abs() < 1e-3, "{quick} {slow}");
        }
    }

    #[test]
    fn filters_keep_what_the_slow_way_keeps(
        sampling in any_sampling(),
        logits in prop::collection::vec(
            prop_oneof![-9.0_f32..3.0, (-3_i8..3).prop_map(f32::from)],
            1..700,
        ),
    ) {
        if let Some(slow) = kept_slowly(&sampling, &logits) {
            prop_assert_eq!(kept_quickly(&sampling, &logits), slow);
        }
    }

    #[test]
    fn each_filter_alone_keeps_what_the_slow_way_keeps(
        value in 0.0_f32..1.0,
        logits in prop::collection::vec(-9.0_f32..3.0, 1..700),
    ) {
        let plain = warm(1.0, 0);
        for sampling in [
            Sampling { top_p: value, ..plain.clone() },
            Sampling { min_p: value, ..plain.clone() },
            Sampling { top_k: 1 + (value * 50.0) as u32, ..plain },
        ] {
            if let Some(slow) = kept_slowly(&sampling, &logits) {
                prop_assert_eq!(kept_quickly(&sampling, &logits), slow);
            }
        }
    }

    #[test]
    fn what_is_drawn_is_among_what_is_kept(
        sampling in any_sampling(),
        step: u32,
        logits in prop::collection::vec(-9.0_f32..9.0, 1..300),
    ) {
        let plain = Sampling {
            repetition_penalty: 1.0, frequency_penalty: 0.0, presence_penalty: 0.0,
            logit_bias: vec![], ..sampling
        };
        let token = choose(&plain, step, &logits).unwrap();
        prop_assert!(kept_quickly(&plain, &logits).contains(&token));
    }

    #[test]
    fn the_likeliest_is_that_of_a_plain_search(
        logits in prop::collection::vec(
            prop_oneof![-5.0_f32..5.0, Just(f32::NAN), Just(f32::NEG_INFINITY), Just(4.5)],
            1..900,
        ),
    ) {
        let mut best: Option<(u32, f32)> = None;
        for (token, &logit) in (0..).zip(&logits) {
            if logit.is_finite() && best.is_none_or(|(_, most)| logit > most) {
                best = Some((token, logit));
            }
        }
        prop_assert_eq!(choose(&Sampling::greedy(), 0, &logits), best.map(|it| it.0));
    }
}

#[test]
fn a_barred_token_never_comes_even_where_it_is_allowed_or_likeliest() {
    let history = History::new(&Sampling::greedy(), &[]);
    let sampling = Sampling::greedy();
    let choose = |allowed, barred| {
        let sample = Sample {
            sampling: &sampling,
            history: &history,
            allowed,
            barred,
            step: 0,
        };
        let chosen = Sampler::default().choose(&sample, &[3.0, 2.0, 1.0]);
        chosen.map(|chosen| chosen.token)
    };
    assert_eq!(choose(None, &[]), Some(0));
    assert_eq!(choose(None, &[0, 9]), Some(1));
    assert_eq!(choose(Some(TokenMask(&[0b101])), &[0]), Some(2));
    assert_eq!(choose(Some(TokenMask(&[0b001])), &[0]), None);
}
