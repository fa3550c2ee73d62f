//! Many dense layers, of which each token takes a few.

use std::sync::Arc;

use mlx_rs::error::Exception;
use mlx_rs::ops::indexing::{TryIndexOp, take_along_axis};
use mlx_rs::ops::{argpartition_axis, softmax_axis};
use mlx_rs::{Array, stop_gradient};

use super::checkpoint::{Checkpoint, Layout, LinearSize, numbers};
use super::feed_forward::Dense;
use super::layer::Place;
use super::layers::{self, Norm};
use super::linear::{Linear, Matrix};
use crate::kernels::{self, Room, Rows, Stored, Weighing};
use crate::model::config::{self, Activation, Bias, Router};
use crate::model::error::ModelError;
use crate::model::host;

#[derive(Clone, Debug)]
pub(super) struct Experts {
    router: Linear,
    kind: Router,
    /// What Gemma's router does with its input and its shares.
    scaling: Option<Scaling>,
    chosen: i32,
    each: Each,
    shared: Option<Shared>,
}

#[derive(Clone, Debug)]
enum Each {
    Stacks(Box<Stacks>),
    /// For the CPU's own kernel, which chooses as well.
    Packed(Arc<kernels::Experts>),
}

/// Linear layers of all experts, one upon the other.
#[derive(Clone, Debug)]
struct Stacks {
    gate: Linear,
    up: Linear,
    down: Linear,
    activation: Activation,
    layout: Layout,
}

#[derive(Clone, Debug)]
struct Scaling {
    input: Norm,
    /// (experts).
    shares: Array,
}

/// The dense layer that every token takes.
#[derive(Clone, Debug)]
struct Shared {
    dense: Dense,
    gate: Linear,
}

/// A token's experts and their shares, both (batch, tokens, chosen).
struct Choice {
    experts: Array,
    shares: Array,
}

impl Experts {
    pub(super) fn build(
        shape: &config::Experts,
        place: &Place<'_>,
        from: &mut Checkpoint,
    ) -> Result<Self, ModelError> {
        let hidden = place.config.hidden_size;
        let inner = shape.each.inner;
        let router_bias = match shape.router {
            Router::SharesOfChosen => Bias::Present,
            Router::SharesOfAll
            | Router::SharesOfAllRenormalised
            | Router::SharesOfChosenScaled => Bias::Absent,
        };
        let to = |output: i32, input: i32| LinearSize { output, input };
        let router = place.named(shape.names.router);
        let router = from.linear(&router, to(shape.count, hidden), router_bias)?;
        let mut stack = |name: &str, size: LinearSize| {
            let name = place.named(&format!("{}.{name}", shape.names.experts));
            from.stacked(&name, shape.count, size, shape.each.bias)
        };
        let stacks = Stacks {
            gate: stack("gate_proj", to(inner, hidden))?,
            up: stack("up_proj", to(inner, hidden))?,
            down: stack("down_proj", to(hidden, inner))?,
            activation: shape.each.activation,
            layout: from.layout(),
        };
        let scaling = scaling(shape, place, from)?;
        let packed = match stacks.layout {
            Layout::Apart | Layout::Joined => None,
            Layout::Packed => stacks.packed(shape, scaling.as_ref())?,
        };
        let each = match packed {
            Some(packed) => Each::Packed(Arc::new(packed)),
            None => {
                for array in stacks.arrays() {
                    from.kept(array.clone());
                }
                Each::Stacks(Box::new(stacks))
            }
        };
        Ok(Self {
            router,
            kind: shape.router,
            chosen: shape.chosen,
            each,
            scaling,
            shared: shape
                .shared_inner
                .map(|inner| Shared::build(&shape.each, inner, place, from))
                .transpose()?,
        })
    }

    /// The router may look at another state than the experts.
    pub(super) fn apply(&self, routed: &Array, input: &Array) -> Result<Array, Exception> {
        let scores = match &self.scaling {
            Some(scaling) => self.router.apply(&layers::norm(&scaling.input, routed)?)?,
            None => self.router.apply(routed)?,
        };
        let sum = match &self.each {
            Each::Stacks(stacks) => stacks.apply(&self.choose(&scores)?, input)?,
            Each::Packed(packed) => on_host(packed, &scores, input)?,
        };
        match &self.shared {
            Some(shared) => sum.add(shared.apply(input)?),
            None => Ok(sum),
        }
    }

    fn choose(&self, logits: &Array) -> Result<Choice, Exception> {
        match self.kind {
            Router::SharesOfAll => self.highest(&softmax_axis(logits, -1, true)?),
            Router::SharesOfAllRenormalised => {
                let highest = self.highest(&softmax_axis(logits, -1, true)?)?;
                let sum = highest.shares.sum_axis(-1, true)?;
                Ok(Choice {
                    shares: highest.shares.divide(sum)?,
                    ..highest
                })
            }
            Router::SharesOfChosen => {
                let highest = self.highest(logits)?;
                Ok(Choice {
                    shares: softmax_axis(&highest.shares, -1, true)?,
                    ..highest
                })
            }
            Router::SharesOfChosenScaled => {
                let highest = self.highest(logits)?;
                let shares = softmax_axis(&highest.shares, -1, false)?;
                let scaling = self
                    .scaling
                    .as_ref()
                    .expect("such a router is built with scales");
                let scales = scaling.shares.take_axis(&highest.experts, 0)?;
                Ok(Choice {
                    shares: shares.multiply(scales)?,
                    ..highest
                })
            }
        }
    }

    fn highest(&self, scores: &Array) -> Result<Choice, Exception> {
        let order = argpartition_axis(scores, -self.chosen, -1)?;
        // A choice is no smooth function of the scores; their gradient flows through the shares.
        let experts = stop_gradient(order.try_index((.., .., -self.chosen..))?)?;
        Ok(Choice {
            shares: take_along_axis(scores, &experts, -1)?,
            experts,
        })
    }
}

impl Stacks {
    fn apply(&self, choice: &Choice, input: &Array) -> Result<Array, Exception> {
        // (batch, tokens, chosen, 1, width): a matrix of one row for each expert of each token.
        let rows = input.expand_dims(2)?.expand_dims(3)?;
        let gate = self.gate.apply_chosen(&rows, &choice.experts)?;
        let up = self.up.apply_chosen(&rows, &choice.experts)?;
        let inner = layers::gated(self.activation, self.layout, &gate, &up)?;
        let made = self
            .down
            .apply_chosen(&inner, &choice.experts)?
            .squeeze_axes(&[3])?;
        let shares = choice.shares.expand_dims(3)?;
        made.multiply(shares)?
            .sum_axis(2, false)?
            .as_dtype(input.dtype())
    }

    fn parts(&self) -> [&Linear; 3] {
        [&self.gate, &self.up, &self.down]
    }

    fn arrays(&self) -> impl Iterator<Item = &Array> {
        self.parts().into_iter().flat_map(Linear::arrays)
    }

    /// Packed for the CPU, if they are of floats.
    fn packed(
        &self,
        shape: &config::Experts,
        scaling: Option<&Scaling>,
    ) -> Result<Option<kernels::Experts>, ModelError> {
        let [Matrix::Dense(gate), Matrix::Dense(up), Matrix::Dense(down)] =
            self.parts().map(|part| &part.matrix)
        else {
            return Ok(None);
        };
        let weighing = match shape.router {
            Router::SharesOfAll => Weighing::OfAll,
            Router::SharesOfAllRenormalised | Router::SharesOfChosen => Weighing::OfChosen,
            Router::SharesOfChosenScaled => Weighing::OfChosenScaled(numbers(
                &scaling.expect("such a router is built with scales").shares,
            )?),
        };
        let mut packed = kernels::Experts::new(
            width(gate.dim(2)),
            layers::on_host(self.activation),
            weighing,
            width(shape.chosen),
        );
        // One expert at a time: beside a stack and its panels no third copy is held.
        for expert in 0..shape.count {
            let of = |stack: &Array| numbers(&stack.try_index(expert)?);
            let matrices = [of(gate)?, of(up)?, of(down)?];
            let biases = self.parts().map(|part| part.bias.as_ref().map(of));
            let biases = match biases {
                [Some(gate), Some(up), Some(down)] => Some([gate?, up?, down?]),
                _ => None,
            };
            packed.push(Stored {
                matrices: matrices.each_ref().map(Vec::as_slice),
                biases: biases.as_ref().map(|all| all.each_ref().map(Vec::as_slice)),
            });
        }
        Ok(Some(packed))
    }
}

fn on_host(
    experts: &Arc<kernels::Experts>,
    scores: &Array,
    input: &Array,
) -> Result<Array, Exception> {
    let (hidden, before) = input.shape().split_last().expect("a state has a width");
    let places: i32 = before.iter().product::<i32>() * count(experts.chosen());
    let gated = [places, count(experts.gated_width())];
    let made = [places, *hidden];
    let experts = Arc::clone(experts);
    let kernel = move |inputs: &[Rows<'_>], outputs: &mut [&mut [f32]]| {
        let [output, gated, made] = outputs else {
            unreachable!("three outputs are asked for");
        };
        experts.apply(&inputs[0], &inputs[1], Room { gated, made }, output);
    };
    // The room is an output that nobody reads: so MLX, which knows what is free, gives it.
    let mut arrays = host::apply(&[input, scores], &[input.shape(), &gated, &made], kernel)?;
    Ok(arrays.swap_remove(0))
}

fn width(size: i32) -> usize {
    usize::try_from(size).expect("sizes are positive")
}

fn count(size: usize) -> i32 {
    i32::try_from(size).expect("sizes are read from a config as i32")
}

fn scaling(
    shape: &config::Experts,
    place: &Place<'_>,
    from: &mut Checkpoint,
) -> Result<Option<Scaling>, ModelError> {
    match shape.router {
        Router::SharesOfAll | Router::SharesOfAllRenormalised | Router::SharesOfChosen => Ok(None),
        Router::SharesOfChosenScaled => {
            let hidden = place.config.hidden_size;
            let scale = from.tensor(place.named("router.scale"), &[hidden])?;
            #[expect(clippy::cast_precision_loss, reason = "widths are exact below 2^24")]
            let root = (hidden as f32).sqrt().recip();
            Ok(Some(Scaling {
                input: Norm {
                    weight: Some(from.kept(layers::scaled(&scale, root)?)),
                    eps: place.config.norm.eps,
                    on_host: None,
                },
                shares: from.constant(place.named("router.per_expert_scale"), &[shape.count])?,
            }))
        }
    }
}

impl Shared {
    fn build(
        each: &config::Dense,
        inner: i32,
        place: &Place<'_>,
        from: &mut Checkpoint,
    ) -> Result<Self, ModelError> {
        let size = LinearSize {
            output: 1,
            input: place.config.hidden_size,
        };
        let dense = config::Dense { inner, ..*each };
        let gate = place.named("mlp.shared_expert_gate");
        Ok(Self {
            dense: Dense::build(&dense, "mlp.shared_expert", place, from)?,
            gate: from.linear(&gate, size, Bias::Absent)?,
        })
    }

    fn apply(&self, input: &Array) -> Result<Array, Exception> {
        layers::gated_by_sigmoid(&self.dense.apply(input)?, &self.gate.apply(input)?)
    }
}
