//! What routing and billing ask of a request.

use super::{Ends, Input, Request};
use crate::api::refusal::{Fault, Place, Refusal};
use crate::config::Catalog;
use crate::denial::Denial;
use crate::event::Ask;
use crate::ids::{AccountId, RequestId};

/// Text in long words of one language has up to so many times the bytes of a token that an estimate
/// assumes.
const LONG_TOKENS_FACTOR: u32 = 4;
/// What a chat template may add around the messages, for the billing bound.
const TEMPLATE_TOKENS: u64 = 64;

impl Request<'_> {
    /// Messages, or prompts.
    #[must_use]
    pub fn message_count(&self) -> usize {
        match &self.input {
            Input::Conversation(conversation) => conversation.messages.len(),
            Input::Prompts(prompts) => prompts.len(),
        }
    }

    /// Estimate for routing: about a token for each four bytes of text.
    #[must_use]
    pub fn prompt_tokens(&self) -> u32 {
        let bytes_per_token = u64::from(Ask::BYTES_PER_TOKEN);
        saturated(self.text_bytes.div_ceil(bytes_per_token).max(1))
    }

    /// Upper bound for billing: no tokenizer makes more tokens than there are bytes in what its
    /// template can show it. Of the text itself, so that it is the same however its JSON is spelled.
    #[must_use]
    pub fn prompt_tokens_bound(&self) -> u32 {
        saturated(self.prompt_bytes + TEMPLATE_TOKENS)
    }

    /// The name of the model, where it must be there.
    ///
    /// # Errors
    /// It is not.
    pub fn named_model(&self) -> Result<&str, Refusal> {
        let missing = Refusal::field(Place::field("model"), Fault::Missing);
        self.model.as_deref().ok_or(missing)
    }

    /// Bytes of the longest stop string.
    #[must_use]
    pub fn stop_bytes_max(&self) -> u32 {
        let longest = self.stops.iter().map(String::len).max();
        longest.map_or(0, |bytes| u32::try_from(bytes).unwrap_or(u32::MAX))
    }

    /// Whether its own wishes may bring about tokens that have no text.
    #[must_use]
    pub fn may_be_silent(&self) -> bool {
        self.ends == Ends::Ignored
            || self.output_tokens_min > 0
            || !self.sampling.logit_bias.is_empty()
    }

    /// That one machine gives one answer to it.
    ///
    /// # Errors
    /// Several are asked for.
    pub fn one_answer(&self) -> Result<(), Refusal> {
        if self.choices > 1 {
            return Err(Refusal::field(Place::field("n"), Fault::ManyChoices));
        }
        match &self.input {
            Input::Prompts(prompts) if prompts.len() > 1 => {
                Err(Refusal::field(Place::field("prompt"), Fault::ManyChoices))
            }
            Input::Conversation(_) | Input::Prompts(_) => Ok(()),
        }
    }

    /// The request as the coordinator sees it.
    ///
    /// # Errors
    /// The catalogue lacks the model.
    pub fn ask(
        &self,
        request: RequestId,
        account: AccountId,
        catalog: &Catalog,
    ) -> Result<Ask, Denial> {
        let name = self.model.as_deref().ok_or(Denial::UnknownModel)?;
        let model = catalog.find(name).ok_or(Denial::UnknownModel)?;
        let spec = catalog.spec(model).ok_or(Denial::UnknownModel)?;
        let output_tokens_max = self.output_tokens_max.unwrap_or(spec.output_tokens_default);
        // An estimate is no reason to refuse: what may fit is sent, and the machine counts.
        let estimate = self.prompt_tokens();
        let room = spec.context_tokens.saturating_sub(output_tokens_max);
        let may_fit = estimate / LONG_TOKENS_FACTOR < room;
        Ok(Ask {
            prompt_tokens: if may_fit {
                estimate.min(room)
            } else {
                estimate
            },
            prompt_tokens_bound: self.prompt_tokens_bound(),
            output_tokens_max,
            delivery: self.delivery,
            ..Ask::new(request, account, model)
        })
    }
}

fn saturated(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
