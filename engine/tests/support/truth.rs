//! What a network gives in double precision, computed as plainly as its formulas read, and how far
//! single precision may be from it.
//!
//! A machine's own order of sums decides how its results are rounded, so no two agree, and none is
//! right. The truth is computed once exactly and a few times with noise: each result is moved up or
//! down by what rounding may move a sum of so many terms in single precision, in any order of them (the
//! unit roundoff, times the root of their number, times their magnitudes together). How far the noisy
//! networks stray is how far any honest machine may.

use std::cell::RefCell;
use std::collections::BTreeMap;

use cereus_engine::model::Config;
use cereus_engine::model::config::{
    Activation, Attention, Dense, Experts, FeedForward, GatedDelta, Head, HeadNorms, KeyValue,
    Layer, Mixer, NormPlaces, NormWeight, OutputGate, OutputScale, Rope, RopePairs, RopeStretch,
    Router, Sinks, YarnRamp,
};
use mlx_rs::Array;

use super::Stream;

/// Half the distance of one to the next number in single precision.
const UNIT: f64 = (f32::EPSILON / 2.0) as f64;
/// Roundings of a function that a library approximates, as if they were terms of a sum.
const FUNCTION_TERMS: usize = 16;
const NOISY_RUNS: u64 = 6;
/// A few runs do not show the worst of all: a result may be so many times as far off.
const SAFETY: f64 = 4.0;
/// Keeps the length of queries and keys of a recurrent layer from dividing by zero.
const LENGTH_EPS: f64 = 1e-6;

type Vector = Vec<f64>;

/// The logits after each token, and how far from them a result may be.
pub(crate) struct Truth {
    pub(crate) logits: Vec<Vector>,
    pub(crate) tolerance: f64,
}

impl Truth {
    /// # Panics
    /// Rounding changes what the network says: no machine can be held to that.
    pub(crate) fn of(config: &Config, arrays: &BTreeMap<String, Array>, tokens: &[u32]) -> Self {
        let weights: BTreeMap<String, Vector> = arrays
            .iter()
            .map(|(name, array)| {
                let numbers = array.to_vec_exact::<f32>().unwrap();
                (name.clone(), numbers.into_iter().map(f64::from).collect())
            })
            .collect();
        let run = |noise: Option<Stream>| {
            let noise = noise.map(RefCell::new);
            let network = Network {
                config,
                weights: &weights,
                noise,
            };
            network.logits(tokens)
        };
        let logits = run(None);
        let mut furthest = 0.0_f64;
        for seed in 0..NOISY_RUNS {
            for (noisy, exact) in run(Some(Stream(seed))).iter().zip(&logits) {
                let off = noisy.iter().zip(exact).map(|(a, b)| (a - b).abs());
                furthest = off.fold(furthest, f64::max);
            }
        }
        let tolerance = SAFETY * furthest;
        let greatest = logits.iter().flatten().fold(0.0_f64, |a, b| a.max(b.abs()));
        assert!(
            tolerance < 1e-2 * greatest,
            "logits of {greatest} that rounding moves by {tolerance} prove nothing: {:?}, {} tokens",
            config.family,
            tokens.len()
        );
        Self { logits, tolerance }
    }

    /// Holds what was found after a number of tokens against the truth.
    pub(crate) fn check(&self, tokens: usize, found: &[f32], what: &str) {
        let expected = &self.logits[tokens - 1];
        assert_eq!(expected.len(), found.len());
        for (ix, (truth, found)) in expected.iter().zip(found).enumerate() {
            let off = (truth - f64::from(*found)).abs();
            assert!(
                off <= self.tolerance,
                "{what}, {tokens} tokens, logit {ix}: {found} is {off:e} from {truth}, which \
                 rounding to single precision moves by at most {:e}",
                self.tolerance
            );
        }
    }

    /// Whether the likeliest token after so many is the likeliest on every machine.
    pub(crate) fn is_clear(&self, tokens: usize) -> bool {
        let mut logits = self.logits[tokens - 1].clone();
        logits.sort_by(|a, b| b.total_cmp(a));
        logits[0] - logits[1] > 2.0 * self.tolerance
    }
}

struct Network<'a> {
    config: &'a Config,
    weights: &'a BTreeMap<String, Vector>,
    /// Absent for the truth.
    noise: Option<RefCell<Stream>>,
}

/// Keys and values of one layer: by token, then by head.
struct Held {
    keys: Vec<Vec<Vector>>,
    values: Vec<Vec<Vector>>,
}

impl Network<'_> {
    fn logits(&self, tokens: &[u32]) -> Vec<Vector> {
        let config = self.config;
        let embedded = self.rows("model.embed_tokens", tokens, config.hidden_size);
        let scale = config.embedding_scale.map_or(1.0, f64::from);
        let mut states: Vec<Vector> = embedded.iter().map(|row| self.scaled(row, scale)).collect();
        let own_inputs = self.own_inputs(tokens, &states);
        let mut held: BTreeMap<usize, Held> = BTreeMap::new();
        for (ix, (layer, store)) in config
            .layers
            .iter()
            .zip(config.store_of_layers())
            .enumerate()
        {
            let at = |name: &str| format!("model.layers.{ix}.{name}");
            let normed = self.norms(&at("input_layernorm"), &states);
            let mut seen = match &layer.mixer {
                Mixer::Attention(shape) => {
                    let block = Block {
                        network: self,
                        shape,
                        name: at("self_attn"),
                    };
                    if !matches!(shape.key_value, KeyValue::OfLayer(_)) {
                        held.insert(store, block.held(&normed));
                    }
                    block.apply(&normed, &held[&store])
                }
                Mixer::GatedDelta(shape) => self.delta(shape, &at("linear_attn"), &normed),
            };
            let before = match layer.norms {
                NormPlaces::Before => "post_attention_layernorm",
                NormPlaces::Around => {
                    seen = self.norms(&at("post_attention_layernorm"), &seen);
                    "pre_feedforward_layernorm"
                }
            };
            states = self.sums(&states, &seen);
            let normed = self.norms(&at(before), &states);
            let mut made = self.feed_forward(layer, ix, &states, &normed);
            if layer.norms == NormPlaces::Around {
                made = self.norms(&at("post_feedforward_layernorm"), &made);
            }
            states = self.sums(&states, &made);
            if let Some(own) = &own_inputs {
                states = self.gated_by_own_input(&at(""), &states, |token| &own[token][ix]);
            }
            if layer.output_scale == OutputScale::Stored {
                let scale = self.weights[&at("layer_scalar")][0];
                states = states.iter().map(|row| self.scaled(row, scale)).collect();
            }
        }
        let normed = self.norms("model.norm", &states);
        let has_head = self.weights.contains_key("lm_head.weight");
        let head = match config.head {
            Head::Own => "lm_head",
            Head::TiedUnlessStored if has_head => "lm_head",
            Head::Tied | Head::TiedUnlessStored => "model.embed_tokens",
        };
        let logits = normed.iter().map(|row| self.linear(head, row));
        logits.map(|row| self.capped(row)).collect()
    }

    /// One result of a sum of so many terms whose magnitudes make `magnitude`.
    fn rounded(&self, value: f64, terms: usize, magnitude: f64) -> f64 {
        let Some(noise) = &self.noise else {
            return value;
        };
        let is_up = noise.borrow_mut().word() & 1 == 0;
        let sign = if is_up { 1.0 } else { -1.0 };
        value + sign * UNIT * (terms as f64).sqrt() * magnitude
    }

    fn near(&self, value: f64) -> f64 {
        self.rounded(value, FUNCTION_TERMS, value.abs())
    }

    fn dot(&self, left: &[f64], right: &[f64], start: f64) -> f64 {
        let products = left.iter().zip(right).map(|(a, b)| a * b);
        let magnitude: f64 = products.clone().map(f64::abs).sum();
        let sum = products.sum::<f64>() + start;
        self.rounded(sum, left.len() + 1, magnitude + start.abs())
    }

    fn scaled(&self, row: &[f64], scale: f64) -> Vector {
        row.iter().map(|x| self.near(x * scale)).collect()
    }

    fn sums(&self, left: &[Vector], right: &[Vector]) -> Vec<Vector> {
        let sum = |(a, b): (&f64, &f64)| self.rounded(a + b, 1, (a + b).abs());
        let rows = left.iter().zip(right);
        rows.map(|(left, right)| left.iter().zip(right).map(sum).collect())
            .collect()
    }

    fn rows(&self, name: &str, tokens: &[u32], width: i32) -> Vec<Vector> {
        let matrix = &self.weights[&format!("{name}.weight")];
        let width = size(width);
        let row = |token: &u32| matrix[*token as usize * width..][..width].to_vec();
        tokens.iter().map(row).collect()
    }

    fn linear(&self, name: &str, input: &[f64]) -> Vector {
        self.one_of_stack(name, 0, 1, input)
    }

    /// A linear layer, one of `count` that lie behind each other.
    fn one_of_stack(&self, name: &str, ix: usize, count: usize, input: &[f64]) -> Vector {
        let all = &self.weights[&format!("{name}.weight")];
        let outputs = all.len() / count / input.len();
        let matrix = &all[ix * outputs * input.len()..][..outputs * input.len()];
        let bias = self.weights.get(&format!("{name}.bias"));
        let rows = matrix.chunks_exact(input.len()).enumerate();
        rows.map(|(output, weights)| {
            let bias = bias.map_or(0.0, |bias| bias[ix * outputs + output]);
            self.dot(weights, input, bias)
        })
        .collect()
    }

    fn norms(&self, name: &str, rows: &[Vector]) -> Vec<Vector> {
        rows.iter().map(|row| self.norm(name, row)).collect()
    }

    fn norm(&self, name: &str, row: &[f64]) -> Vector {
        let stored = &self.weights[&format!("{name}.weight")];
        let one = match self.config.norm.weight {
            NormWeight::AsStored => 0.0,
            NormWeight::OnePlusStored => 1.0,
        };
        let weights = stored.iter().map(|weight| one + weight);
        let unit = self.unit(row, f64::from(self.config.norm.eps));
        unit.iter()
            .zip(weights)
            .map(|(x, w)| self.near(x * w))
            .collect()
    }

    /// Scaled to a root mean square of one.
    fn unit(&self, row: &[f64], eps: f64) -> Vector {
        let mean = self.dot(row, row, 0.0) / row.len() as f64;
        self.scaled(row, (mean + eps).sqrt().recip())
    }

    fn sigmoid(&self, x: f64) -> f64 {
        self.near(1.0 / (1.0 + (-x).exp()))
    }

    fn softmax(&self, scores: &[f64], sink: Option<f64>) -> Vector {
        let best = scores.iter().copied().chain(sink).fold(f64::MIN, f64::max);
        let powers: Vector = scores.iter().map(|x| self.near((x - best).exp())).collect();
        let whole = powers.iter().sum::<f64>() + sink.map_or(0.0, |sink| (sink - best).exp());
        let whole = self.rounded(whole, powers.len(), whole);
        powers
            .iter()
            .map(|power| self.near(power / whole))
            .collect()
    }

    fn capped(&self, logits: Vector) -> Vector {
        let Some(cap) = self.config.logit_softcap.map(f64::from) else {
            return logits;
        };
        // The tangent is as far off as a number near one is.
        let capped = |x: &f64| self.rounded(cap * (x / cap).tanh(), FUNCTION_TERMS, x.abs());
        logits.iter().map(capped).collect()
    }

    fn feed_forward(
        &self,
        layer: &Layer,
        ix: usize,
        states: &[Vector],
        normed: &[Vector],
    ) -> Vec<Vector> {
        let at = |name: &str| format!("model.layers.{ix}.{name}");
        match &layer.feed_forward {
            FeedForward::Dense(shape) => self.dense(shape, &at("mlp"), normed),
            FeedForward::Experts(shape) => self.experts(shape, ix, normed, normed),
            FeedForward::DenseAndExperts(dense, experts) => {
                let dense = self.dense(dense, &at("mlp"), normed);
                let dense = self.norms(&at("post_feedforward_layernorm_1"), &dense);
                let input = self.norms(&at("pre_feedforward_layernorm_2"), states);
                let experts = self.experts(experts, ix, states, &input);
                let experts = self.norms(&at("post_feedforward_layernorm_2"), &experts);
                self.sums(&dense, &experts)
            }
        }
    }

    fn dense(&self, shape: &Dense, name: &str, input: &[Vector]) -> Vec<Vector> {
        let of = |row: &Vector| self.gated_layer(shape.activation, name, 0, 1, row);
        input.iter().map(of).collect()
    }

    /// `down(act(gate(x)) * up(x))`, one of `count` that lie behind each other.
    fn gated_layer(
        &self,
        activation: Activation,
        name: &str,
        ix: usize,
        count: usize,
        row: &[f64],
    ) -> Vector {
        let part = |part: &str, row: &[f64]| {
            self.one_of_stack(&format!("{name}.{part}_proj"), ix, count, row)
        };
        let inner = self.gated(activation, &part("gate", row), &part("up", row));
        part("down", &inner)
    }

    fn gated(&self, activation: Activation, gates: &[f64], ups: &[f64]) -> Vector {
        let one = |(gate, up): (&f64, &f64)| match activation {
            Activation::Silu => self.near(gate * self.sigmoid(*gate) * up),
            Activation::GeluTanh => {
                let slope = (2.0 / std::f64::consts::PI).sqrt();
                let tangent = (slope * (gate + 0.044_715 * gate.powi(3))).tanh();
                // Near minus one the sum with one has lost what the tangent was rounded by.
                self.rounded(
                    0.5 * gate * (1.0 + tangent) * up,
                    FUNCTION_TERMS,
                    (gate * up).abs(),
                )
            }
            Activation::SwigluClipped { limit } => {
                let limit = f64::from(limit);
                let gate = gate.min(limit);
                let up = up.clamp(-limit, limit) + 1.0;
                self.near(up * gate * self.sigmoid(1.702 * gate))
            }
        };
        gates.iter().zip(ups).map(one).collect()
    }

    /// The router may look at another state than the experts.
    fn experts(
        &self,
        shape: &Experts,
        ix: usize,
        routed: &[Vector],
        input: &[Vector],
    ) -> Vec<Vector> {
        let at = |name: &str| format!("model.layers.{ix}.{name}");
        let one = |(routed, input): (&Vector, &Vector)| {
            let scores = self.linear(
                &at(shape.names.router),
                &self.router_input(shape, ix, routed),
            );
            let mut order: Vec<usize> = (0..scores.len()).collect();
            order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
            order.truncate(size(shape.chosen));
            let shares = self.shares(shape, ix, &scores, &order);
            let mut sum = vec![0.0; input.len()];
            for (expert, share) in order.into_iter().zip(shares) {
                let name = at(shape.names.experts);
                let activation = shape.each.activation;
                let made = self.gated_layer(activation, &name, expert, size(shape.count), input);
                for (sum, made) in sum.iter_mut().zip(made) {
                    let part = self.near(share * made);
                    *sum = self.rounded(*sum + part, 1, (*sum + part).abs());
                }
            }
            if shape.shared_inner.is_some() {
                let name = at("mlp.shared_expert");
                let made = self.gated_layer(shape.each.activation, &name, 0, 1, input);
                let gate = self.linear(&at("mlp.shared_expert_gate"), input)[0];
                let made = self.scaled(&made, self.sigmoid(gate));
                return self.sums(&[sum], &[made]).remove(0);
            }
            sum
        };
        routed.iter().zip(input).map(one).collect()
    }

    fn router_input(&self, shape: &Experts, ix: usize, routed: &[f64]) -> Vector {
        if shape.router != Router::SharesOfChosenScaled {
            return routed.to_vec();
        }
        let scales = &self.weights[&format!("model.layers.{ix}.router.scale")];
        let unit = self.unit(routed, f64::from(self.config.norm.eps));
        let root = (routed.len() as f64).sqrt().recip();
        let scaled = unit.iter().zip(scales);
        scaled
            .map(|(x, scale)| self.near(x * scale * root))
            .collect()
    }

    fn shares(&self, shape: &Experts, ix: usize, scores: &[f64], order: &[usize]) -> Vector {
        let of_all = self.softmax(scores, None);
        let chosen: Vector = order.iter().map(|ix| scores[*ix]).collect();
        match shape.router {
            Router::SharesOfAll => order.iter().map(|ix| of_all[*ix]).collect(),
            Router::SharesOfAllRenormalised | Router::SharesOfChosen => self.softmax(&chosen, None),
            Router::SharesOfChosenScaled => {
                let scales = &self.weights[&format!("model.layers.{ix}.router.per_expert_scale")];
                let shares = self.softmax(&chosen, None);
                let scaled = shares.iter().zip(order);
                scaled
                    .map(|(share, ix)| self.near(share * scales[*ix]))
                    .collect()
            }
        }
    }

    /// By token and layer: the part of a second embedding that a layer gets.
    fn own_inputs(&self, tokens: &[u32], states: &[Vector]) -> Option<Vec<Vec<Vector>>> {
        let shape = self.config.per_layer_input?;
        let width = size(shape.width);
        let all = shape.width * i32::try_from(self.config.layers.len()).unwrap();
        let embedded = self.rows("model.embed_tokens_per_layer", tokens, all);
        let scale = f64::from(self.config.hidden_size).sqrt().recip();
        let one = |(embedded, state): (&Vector, &Vector)| {
            let projected = self.linear("model.per_layer_model_projection", state);
            let projected = self.scaled(&projected, scale);
            let parts = projected
                .chunks_exact(width)
                .zip(embedded.chunks_exact(width));
            let of_layer = |(projected, embedded): (&[f64], &[f64])| {
                let normed = self.norm("model.per_layer_projection_norm", projected);
                let embedded = self.scaled(embedded, (width as f64).sqrt());
                let sum = self.sums(&[normed], &[embedded]).remove(0);
                self.scaled(&sum, std::f64::consts::FRAC_1_SQRT_2)
            };
            parts.map(of_layer).collect()
        };
        Some(embedded.iter().zip(states).map(one).collect())
    }

    fn gated_by_own_input<'a>(
        &self,
        layer: &str,
        states: &[Vector],
        own: impl Fn(usize) -> &'a Vector,
    ) -> Vec<Vector> {
        let made = states.iter().enumerate().map(|(token, state)| {
            let gate = self.linear(&format!("{layer}per_layer_input_gate"), state);
            let gated = self.gated(Activation::GeluTanh, &gate, own(token));
            let made = self.linear(&format!("{layer}per_layer_projection"), &gated);
            self.norm(&format!("{layer}post_per_layer_input_norm"), &made)
        });
        self.sums(states, &made.collect::<Vec<_>>())
    }

    fn delta(&self, shape: &GatedDelta, name: &str, input: &[Vector]) -> Vec<Vector> {
        let at = |part: &str| format!("{name}.{part}");
        let project = |part: &str| -> Vec<Vector> {
            let part = at(part);
            input.iter().map(|row| self.linear(&part, row)).collect()
        };
        let (mixed, gates) = (project("in_proj_qkv"), project("in_proj_z"));
        let (writes, decays) = (project("in_proj_b"), project("in_proj_a"));
        let (key_heads, key_dim) = (size(shape.key_heads), size(shape.key_dim));
        let (value_heads, value_dim) = (size(shape.value_heads), size(shape.value_dim));
        let key_width = key_heads * key_dim;
        let mut matrices = vec![vec![vec![0.0; key_dim]; value_dim]; value_heads];
        let mut outputs = vec![];
        for token in 0..input.len() {
            let convolved = self.convolved(shape, &at("conv1d"), &mixed, token);
            let unit = |first: usize| {
                let head = &convolved[first..first + key_dim];
                let length = self.dot(head, head, LENGTH_EPS).sqrt();
                self.scaled(head, length.recip())
            };
            let mut made = vec![];
            for (head, matrix) in matrices.iter_mut().enumerate() {
                let key_head = head * key_heads / value_heads;
                let query = unit(key_head * key_dim);
                let query = self.scaled(&query, (key_dim as f64).sqrt().recip());
                let key = unit(key_width + key_head * key_dim);
                let time = decays[token][head] + self.weights[&at("dt_bias")][head];
                let time = self.near(time.exp().ln_1p());
                let rate = self.weights[&at("A_log")][head].exp();
                let keep = self.near((-self.near(rate * time)).exp());
                let write = self.sigmoid(writes[token][head]);
                for (ix, row) in matrix.iter_mut().enumerate() {
                    let value = convolved[2 * key_width + head * value_dim + ix];
                    for x in row.iter_mut() {
                        *x = self.near(*x * keep);
                    }
                    let missing = self.near((value - self.dot(row, &key, 0.0)) * write);
                    for (x, key) in row.iter_mut().zip(&key) {
                        *x = self.rounded(*x + key * missing, 2, x.abs() + (key * missing).abs());
                    }
                    made.push(self.dot(row, &query, 0.0));
                }
            }
            outputs.push(made);
        }
        let gated = outputs.iter().zip(&gates).map(|(made, gate)| {
            let heads = made
                .chunks_exact(value_dim)
                .zip(gate.chunks_exact(value_dim));
            let head = |(made, gate): (&[f64], &[f64])| {
                // This norm's weight is the weight itself in every family.
                let weights = &self.weights[&at("norm.weight")];
                let unit = self.unit(made, f64::from(self.config.norm.eps));
                let normed: Vector = unit.iter().zip(weights).map(|(x, w)| x * w).collect();
                self.gated(Activation::Silu, gate, &normed)
            };
            self.linear(&at("out_proj"), &heads.flat_map(head).collect::<Vector>())
        });
        gated.collect()
    }

    /// One token's channels after the convolution over those before it, and the gate behind that.
    fn convolved(&self, shape: &GatedDelta, name: &str, mixed: &[Vector], token: usize) -> Vector {
        let weights = &self.weights[&format!("{name}.weight")];
        let kernel = size(shape.kernel);
        let channel = |ix: usize| {
            let weights = &weights[ix * kernel..][..kernel];
            let first = (kernel - 1).saturating_sub(token);
            let inputs: Vector = (first..kernel)
                .map(|place| mixed[token + place + 1 - kernel][ix])
                .collect();
            let sum = self.dot(&inputs, &weights[first..], 0.0);
            self.near(sum * self.sigmoid(sum))
        };
        (0..size(shape.mixed_width())).map(channel).collect()
    }
}

/// One layer's attention.
struct Block<'a> {
    network: &'a Network<'a>,
    shape: &'a Attention,
    name: String,
}

impl Block<'_> {
    /// By token and head.
    fn heads(&self, part: &str, input: &[Vector]) -> Vec<Vec<Vector>> {
        let (name, dim) = (format!("{}.{part}", self.name), size(self.shape.head_dim));
        let apart = |row: &Vector| {
            let flat = self.network.linear(&name, row);
            flat.chunks_exact(dim).map(<[f64]>::to_vec).collect()
        };
        input.iter().map(apart).collect()
    }

    /// Normalised, where the layer does that, and turned to its position.
    fn placed(&self, norm: &str, token: usize, head: &[f64]) -> Vector {
        let network = self.network;
        if self.shape.head_norms == HeadNorms::Absent {
            return network.turned(&self.shape.rope, token, head);
        }
        let head = network.norm(&format!("{}.{norm}", self.name), head);
        network.turned(&self.shape.rope, token, &head)
    }

    fn held(&self, input: &[Vector]) -> Held {
        let raw = self.heads("k_proj", input);
        let mut values = match self.shape.key_value {
            KeyValue::OneForBoth => raw.clone(),
            KeyValue::Projected | KeyValue::OfLayer(_) => self.heads("v_proj", input),
        };
        if self.shape.head_norms == HeadNorms::QueryKeyValue {
            let eps = f64::from(self.network.config.norm.eps);
            for value in values.iter_mut().flatten() {
                *value = self.network.unit(value, eps);
            }
        }
        let place = |(token, heads): (usize, &Vec<Vector>)| {
            let head = |head: &Vector| self.placed("k_norm", token, head);
            heads.iter().map(head).collect()
        };
        Held {
            keys: raw.iter().enumerate().map(place).collect(),
            values,
        }
    }

    fn apply(&self, input: &[Vector], held: &Held) -> Vec<Vector> {
        let (network, shape) = (self.network, self.shape);
        let queries = self.heads("q_proj", input);
        let parts = match shape.gate {
            OutputGate::Absent => 1,
            // Each head's query and its gate stand side by side.
            OutputGate::Sigmoid => 2,
        };
        let of_token = |(token, heads): (usize, &Vec<Vector>)| {
            let mut seen = vec![];
            for (head, raw) in heads.iter().step_by(parts).enumerate() {
                let answer = self.answer(token, head, raw, held);
                if shape.gate == OutputGate::Absent {
                    seen.extend(answer);
                    continue;
                }
                let gate = &heads[2 * head + 1];
                let gated = answer.iter().zip(gate);
                seen.extend(gated.map(|(x, gate)| network.near(x * network.sigmoid(*gate))));
            }
            network.linear(&format!("{}.o_proj", self.name), &seen)
        };
        queries.iter().enumerate().map(of_token).collect()
    }

    /// What one query head sees.
    fn answer(&self, token: usize, head: usize, raw: &[f64], held: &Held) -> Vector {
        let (network, shape) = (self.network, self.shape);
        let query = self.placed("q_norm", token, raw);
        let kv_head = head / size(shape.query_heads / shape.kv_heads);
        let window = shape.window.map_or(token + 1, size);
        let from = (token + 1).saturating_sub(window);
        let scale = f64::from(shape.scale);
        let keys = held.keys[from..=token].iter();
        let scores: Vector = keys
            .map(|heads| network.near(network.dot(&query, &heads[kv_head], 0.0) * scale))
            .collect();
        let sink = (shape.sinks == Sinks::Present)
            .then(|| network.weights[&format!("{}.sinks", self.name)][head]);
        let shares = network.softmax(&scores, sink);
        let values = &held.values[from..=token];
        let component = |ix: usize| {
            let column: Vector = values.iter().map(|heads| heads[kv_head][ix]).collect();
            network.dot(&shares, &column, 0.0)
        };
        (0..raw.len()).map(component).collect()
    }
}

impl Network<'_> {
    fn turned(&self, rope: &Rope, position: usize, head: &[f64]) -> Vector {
        let pairs = size(rope.dims) / 2;
        let (frequencies, magnitude) = frequencies(rope);
        let mut turned = head.to_vec();
        for (pair, frequency) in frequencies.into_iter().enumerate() {
            let (a, b) = match rope.pairs {
                RopePairs::Halves => (pair, pair + pairs),
                RopePairs::Neighbours => (2 * pair, 2 * pair + 1),
            };
            let angle = self.near(position as f64 * frequency);
            let (x, y) = (magnitude * head[a], magnitude * head[b]);
            let (sin, cos) = angle.sin_cos();
            turned[a] = self.rounded(x * cos - y * sin, 4, x.abs() + y.abs());
            turned[b] = self.rounded(y * cos + x * sin, 4, x.abs() + y.abs());
        }
        turned
    }
}

/// Radians that each pair turns by for one position, and what it is multiplied by: the formulas of
/// `transformers`.
fn frequencies(rope: &Rope) -> (Vector, f64) {
    let (dims, theta) = (f64::from(rope.dims), f64::from(rope.theta));
    let plain = |pair: i32| theta.powf(-2.0 * f64::from(pair) / dims);
    let all = |of: &dyn Fn(i32) -> f64| (0..rope.dims / 2).map(of).collect::<Vector>();
    match &rope.stretch {
        RopeStretch::None => (all(&plain), 1.0),
        RopeStretch::Linear { factor } => (all(&|pair| plain(pair) / f64::from(*factor)), 1.0),
        RopeStretch::Long { factors, magnitude } => {
            let of = |pair: i32| plain(pair) / f64::from(factors[size(pair)]);
            (all(&of), f64::from(*magnitude))
        }
        RopeStretch::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_context_tokens,
        } => {
            let (low, high) = (f64::from(*low_freq_factor), f64::from(*high_freq_factor));
            let factor = f64::from(*factor);
            let of = |pair: i32| {
                let turns = f64::from(*original_context_tokens) * plain(pair)
                    / (2.0 * std::f64::consts::PI);
                let kept = ((turns - low) / (high - low)).clamp(0.0, 1.0);
                plain(pair) * (kept + (1.0 - kept) / factor)
            };
            (all(&of), 1.0)
        }
        RopeStretch::Yarn(yarn) => {
            let factor = f64::from(yarn.factor);
            let place = |turns: f32| {
                let wave = f64::from(yarn.original_context_tokens)
                    / (f64::from(turns) * 2.0 * std::f64::consts::PI);
                dims * wave.ln() / (2.0 * theta.ln())
            };
            let (low, high) = (place(yarn.beta_fast), place(yarn.beta_slow));
            let (low, high) = match yarn.ramp {
                YarnRamp::Truncated => (low.floor(), high.ceil()),
                YarnRamp::Exact => (low, high),
            };
            let (low, high) = (low.max(0.0), high.min(dims - 1.0));
            let high = if low == high { high + 0.001 } else { high };
            let of = |pair: i32| {
                let stretched = ((f64::from(pair) - low) / (high - low)).clamp(0.0, 1.0);
                plain(pair) * ((1.0 - stretched) + stretched / factor)
            };
            let growth = |mscale: f64| {
                if factor > 1.0 {
                    0.1 * mscale * factor.ln() + 1.0
                } else {
                    1.0
                }
            };
            let all_dim = yarn
                .mscale_all_dim
                .map_or(1.0, |mscale| growth(f64::from(mscale)));
            let by_factor = growth(f64::from(yarn.mscale)) / all_dim;
            (all(&of), yarn.attention_factor.map_or(by_factor, f64::from))
        }
        RopeStretch::Proportional { turning, factor } => {
            let of = |pair: i32| {
                if 2 * pair < *turning {
                    plain(pair) / f64::from(*factor)
                } else {
                    0.0
                }
            };
            (all(&of), 1.0)
        }
    }
}

fn size(size: i32) -> usize {
    usize::try_from(size).unwrap()
}
