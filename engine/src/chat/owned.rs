//! From what the core has read to what outlives the body.

use cereus_core::api::{self, PastCall, Prompt, Quoted, Request};

use super::message::{Call, CalledFunction, Message};
use super::wishes::Wishes;
use super::{ChatRequest, Format, Input, Json, TemplateWishes, Tool, Tools};

impl ChatRequest {
    /// What each of a request's prompts asks for, in their order: one for a conversation. A request
    /// for several answers asks for each of these so many times.
    #[must_use]
    pub fn each(request: &Request<'_>) -> Vec<Self> {
        match &request.input {
            api::Input::Conversation(conversation) => {
                let messages = conversation.messages.iter().map(message).collect();
                let mut one = Self::of(request, Input::Conversation(messages));
                one.template.ending = conversation.ending;
                vec![one]
            }
            api::Input::Prompts(prompts) => prompts
                .iter()
                .map(|prompt| match prompt {
                    Prompt::Text(text) => Input::Text(text.text().into_owned()),
                    Prompt::Tokens(tokens) => Input::Tokens(tokens.clone()),
                })
                .map(|input| Self::of(request, input))
                .collect(),
        }
    }

    fn of(request: &Request<'_>, input: Input) -> Self {
        let template = &request.template;
        Self {
            input,
            max_tokens: request.output_tokens_max,
            min_tokens: request.output_tokens_min,
            wishes: Wishes::from(&request.sampling),
            stops: request.stops.clone(),
            ends: request.ends,
            end_tokens: request.end_tokens.clone(),
            tools: tools(&request.tools),
            format: match &request.form {
                api::Form::Choice(words) => Format::Choice(words.clone()),
                api::Form::Json => Format::Json,
                api::Form::Regex(regex) => Format::Regex(regex.clone()),
                api::Form::Schema { schema, .. } => Format::Schema(json(schema)),
                api::Form::Text => Format::Text,
            },
            template: TemplateWishes {
                variables: template.variables.map(json),
                thinking: template.thinking,
                effort: template.effort.map(str::to_owned),
                ending: api::Ending::default(),
            },
        }
    }
}

fn json(text: &str) -> Json {
    Json::from_text(text.to_owned()).expect("it was read as JSON")
}

fn message(message: &api::Message<'_>) -> Message {
    let text = |quoted: Option<Quoted<'_>>| quoted.map(|it| it.text().into_owned());
    Message {
        role: message.role,
        content: message.content.to_text(),
        name: text(message.name),
        reasoning_content: text(message.reasoning),
        tool_calls: message.calls.iter().map(call).collect(),
        tool_call_id: text(message.call_id),
    }
}

fn call(call: &PastCall<'_>) -> Call {
    Call {
        id: call.id.map(|id| id.text().into_owned()),
        kind: "function",
        function: CalledFunction {
            name: call.name.text().into_owned(),
            arguments: json(&call.arguments()),
        },
    }
}

fn tools(tools: &api::Tools<'_>) -> Tools {
    let tool = |tool: &api::Tool<'_>| Tool {
        name: tool.name.clone(),
        parameters: tool.parameters.map(json),
        is_strict: tool.is_strict,
    };
    Tools {
        list: tools.list.iter().map(tool).collect(),
        raw: tools.raw.map(json),
        choice: tools.choice.clone(),
        parallel: tools.parallel,
    }
}
