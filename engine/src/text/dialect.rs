//! How a family of models writes its thoughts and its calls. Told from its vocabulary and its chat
//! template, not from its name: what is fine-tuned from a model keeps its form and loses its name.

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dialect {
    /// Around a thought; harmony has channels in place of it.
    pub reasoning: Option<Marks>,
    pub calls: CallFormat,
}

/// What stands before and after a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marks {
    pub open: &'static str,
    pub close: &'static str,
}

/// How a call is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallFormat {
    /// `<start_function_call>call:name{key:<escape>text<escape>}<end_function_call>`
    FunctionGemma,
    /// `<|tool_call>call:name{key:<|"|>text<|"|>}<tool_call|>`
    Gemma,
    /// A message to `functions.name` on the commentary channel.
    Harmony,
    /// The answer is `{"name":..,"parameters":{..}}` and nothing else.
    Llama,
    /// `[TOOL_CALLS]name[ARGS]{..}`, or one array of calls.
    Mistral,
    /// `<tool_call>` around JSON, or around `<function=name><parameter=key>text</parameter>`.
    Tagged,
}

impl CallFormat {
    /// Around a call; a format without a closing mark goes on to the end of the answer.
    pub(crate) const fn marks(self) -> Option<Marks> {
        match self {
            Self::FunctionGemma => Some(Marks {
                open: "<start_function_call>",
                close: "<end_function_call>",
            }),
            Self::Gemma => Some(Marks {
                open: "<|tool_call>",
                close: "<tool_call|>",
            }),
            Self::Harmony | Self::Llama => None,
            Self::Mistral => Some(Marks {
                open: "[TOOL_CALLS]",
                close: "",
            }),
            Self::Tagged => Some(Marks {
                open: "<tool_call>",
                close: "</tool_call>",
            }),
        }
    }
}

const THINK: Marks = Marks {
    open: "<think>",
    close: "</think>",
};
const GEMMA_THOUGHT: Marks = Marks {
    open: "<|channel>thought",
    close: "<channel|>",
};
/// What Llama may write before a call.
pub(super) const PYTHON_TAG: &str = "<|python_tag|>";

impl Dialect {
    #[must_use]
    pub fn of(has_token: impl Fn(&str) -> bool, template: &str) -> Self {
        let is_harmony = ["<|start|>", "<|channel|>", "<|message|>"]
            .into_iter()
            .all(&has_token);
        let calls = if is_harmony {
            CallFormat::Harmony
        } else if template.contains("<|tool_call>") {
            CallFormat::Gemma
        } else if template.contains("<start_function_call>") {
            CallFormat::FunctionGemma
        } else if template.contains("[TOOL_CALLS]") {
            CallFormat::Mistral
        } else if has_token(PYTHON_TAG) {
            CallFormat::Llama
        } else {
            CallFormat::Tagged
        };
        let reasoning = if is_harmony {
            None
        } else if template.contains("<|channel>") {
            Some(GEMMA_THOUGHT)
        } else {
            let has_think = [THINK.open, THINK.close].into_iter().all(&has_token);
            (has_think || template.contains(THINK.close)).then_some(THINK)
        };
        Self { reasoning, calls }
    }

    /// The tokens that a parser needs to see. Vocabularies call some of them special, which readers
    /// never see.
    pub fn marks(&self) -> impl Iterator<Item = &'static str> {
        let reasoning = match self.reasoning {
            Some(GEMMA_THOUGHT) => ["<|channel>", "<channel|>"],
            Some(marks) => [marks.open, marks.close],
            None => ["", ""],
        };
        let calls: &[&str] = match self.calls {
            CallFormat::FunctionGemma => {
                &["<start_function_call>", "<end_function_call>", "<escape>"]
            }
            CallFormat::Gemma => &["<|tool_call>", "<tool_call|>", "<|\"|>"],
            CallFormat::Harmony => &[
                "<|start|>",
                "<|channel|>",
                "<|message|>",
                "<|constrain|>",
                "<|end|>",
            ],
            CallFormat::Llama => &[PYTHON_TAG],
            CallFormat::Mistral => &["[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"],
            CallFormat::Tagged => &["<tool_call>", "</tool_call>"],
        };
        let all = reasoning.into_iter().chain(calls.iter().copied());
        all.filter(|mark| !mark.is_empty())
    }

    /// Whether the prompt ends inside a thought, as templates do that open it for the model.
    #[must_use]
    pub fn is_thinking(&self, prompt_tail: &str) -> bool {
        self.reasoning.is_some_and(|marks| {
            match (
                prompt_tail.rfind(marks.open),
                prompt_tail.rfind(marks.close),
            ) {
                (Some(open), Some(close)) => open > close,
                (Some(_), None) => true,
                (None, _) => false,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_family_is_told_by_its_tokens_or_its_template() {
        let table: [(&[&str], &str, CallFormat, Option<Marks>); 7] = [
            (&[], "{{ messages }}", CallFormat::Tagged, None),
            (
                &["<think>", "</think>"],
                "<tool_call>",
                CallFormat::Tagged,
                Some(THINK),
            ),
            (&[PYTHON_TAG], "", CallFormat::Llama, None),
            (&[], "[TOOL_CALLS]", CallFormat::Mistral, None),
            (
                &[],
                "<|tool_call> <|channel>thought",
                CallFormat::Gemma,
                Some(GEMMA_THOUGHT),
            ),
            (
                &[],
                "<start_function_call>",
                CallFormat::FunctionGemma,
                None,
            ),
            (
                &["<|start|>", "<|channel|>", "<|message|>"],
                "",
                CallFormat::Harmony,
                None,
            ),
        ];
        for (tokens, template, calls, reasoning) in table {
            let dialect = Dialect::of(|token| tokens.contains(&token), template);
            assert_eq!(dialect, Dialect { reasoning, calls });
        }
    }

    #[test]
    fn a_thought_that_the_template_opened_and_closed_again_is_over() {
        let dialect = Dialect::of(|_| false, "</think>");
        assert!(dialect.is_thinking("assistant\n<think>\n"));
        assert!(!dialect.is_thinking("<think>\n\n</think>\n\n"));
        assert!(!dialect.is_thinking("assistant\n"));
    }
}
