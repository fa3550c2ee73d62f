//! Chat templates: what of a request they see, and what their errors tell.

use super::clock;
use super::continuation::end_within;
use super::jinja::text::{Origin, Text};
use super::jinja::value::Value;
use super::jinja::{Cause, Error, Program};
use crate::chat::{ChatRequest, Ending, Message};
use crate::failure::{Failure, Reason};

/// Characters of a template's own complaint that are told.
const COMPLAINT_CHARS_MAX: usize = 500;

#[derive(Debug)]
pub(super) struct Template {
    program: Program,
    bos_token: Option<String>,
    eos_token: Option<String>,
}

impl Template {
    /// # Errors
    /// The template does not parse; the text says where.
    pub(super) fn new(
        source: &str,
        bos_token: Option<String>,
        eos_token: Option<String>,
    ) -> Result<Self, String> {
        let program = Program::parse(source).map_err(|error| place_and_cause(&error))?;
        Ok(Self {
            program,
            bos_token,
            eos_token,
        })
    }

    /// The prompt, up to where the assistant's answer begins.
    ///
    /// # Errors
    /// 400: the template says no to the messages, in its own words. 422: it breaks over them.
    pub(super) fn render(
        &self,
        request: &ChatRequest,
        messages: &[Message],
    ) -> Result<Text, Failure> {
        let text = self
            .try_render(request, messages)
            .map_err(Unrendered::into_failure)?;
        let (Ending::SameTurn, Some(last)) = (request.template.ending, messages.last()) else {
            return Ok(text);
        };
        let end = end_within(text.as_str(), &last.content)?;
        Ok(text.slice(0..end))
    }

    /// The same, telling a template that breaks from one that says no.
    pub(super) fn try_render(
        &self,
        request: &ChatRequest,
        messages: &[Message],
    ) -> Result<Text, Unrendered> {
        let variables = self
            .variables(request, messages)
            .map_err(Unrendered::Failed)?;
        let named = variables.iter();
        let named = named.map(|(name, value)| (name.as_str(), value.clone()));
        let rendered = self.program.render(named.collect(), clock::now());
        rendered.map_err(|error| match &error.cause {
            // What it quotes of the conversation is left out.
            Cause::Raised(words) => {
                let words: String = words.redacted().chars().take(COMPLAINT_CHARS_MAX).collect();
                Unrendered::Raised(Failure::client(if words.trim().is_empty() {
                    "the model's chat template refuses this conversation".to_owned()
                } else {
                    words
                }))
            }
            Cause::Failed(_) => {
                let text = format!(
                    "the model's chat template failed {}",
                    place_and_cause(&error)
                );
                Unrendered::Failed(Failure::new(Reason::JinjaTemplate, text))
            }
        })
    }

    fn variables(
        &self,
        request: &ChatRequest,
        messages: &[Message],
    ) -> Result<Vec<(String, Value)>, Failure> {
        let wishes = &request.template;
        let mut variables = vec![];
        if let Some(json) = &wishes.variables {
            let given = Value::from_json(json.as_str(), Origin::Setting);
            let Ok(Value::Map(map)) = given else {
                return Err(Failure::client("chat_template_kwargs must be an object"));
            };
            for (name, value) in map.iter() {
                variables.push((name.to_text().as_str().to_owned(), value.clone()));
            }
        }
        let mut set_unless_given = |name: &str, value: Option<Value>| {
            if let Some(value) = value.filter(|_| variables.iter().all(|(it, _)| it != name)) {
                variables.push((name.to_owned(), value));
            }
        };
        set_unless_given("enable_thinking", wishes.thinking.map(Value::Bool));
        let effort = wishes.effort.as_ref();
        let effort = effort.map(|it| Value::Text(Text::new(it, Origin::Setting)));
        set_unless_given("reasoning_effort", effort);
        let tools = request
            .tools
            .raw
            .as_ref()
            .filter(|_| request.tools.may_be_called());
        let turns: Result<Vec<Value>, Failure> = messages.iter().map(turn).collect();
        let own = |token: &Option<String>| Value::own(token.as_deref().unwrap_or_default());
        let given = [
            ("messages", Value::list(turns?)),
            // Absent ones are there as well, and none: that is what templates are written for.
            (
                "tools",
                tools.map_or(Ok(Value::None), |it| content(it.as_str()))?,
            ),
            ("documents", Value::None),
            (
                "add_generation_prompt",
                Value::Bool(wishes.ending == Ending::NewTurn),
            ),
            ("bos_token", own(&self.bos_token)),
            ("eos_token", own(&self.eos_token)),
        ];
        // The last of a name is the one that counts.
        variables.extend(given.map(|(name, value)| (name.to_owned(), value)));
        Ok(variables)
    }
}

/// Why a template gave no prompt.
pub(super) enum Unrendered {
    Failed(Failure),
    /// It says so itself, by `raise_exception`.
    Raised(Failure),
}

impl Unrendered {
    pub(super) fn into_failure(self) -> Failure {
        match self {
            Self::Failed(failure) | Self::Raised(failure) => failure,
        }
    }
}

fn place_and_cause(error: &Error) -> String {
    let cause = match &error.cause {
        Cause::Failed(text) => text.clone(),
        Cause::Raised(words) => words.redacted(),
    };
    match error.line {
        Some(line) => format!("at its line {line}: {cause}"),
        None => format!("because of {cause}"),
    }
}

/// JSON of the request, in the caller's order of keys: models are trained on one order.
fn content(json: &str) -> Result<Value, Failure> {
    Value::from_json(json, Origin::Content)
        .map_err(|_| Failure::client("messages or tools are nested too deeply"))
}

/// A turn of the conversation. Its role is one of our own words: templates make marks of it.
fn turn(message: &Message) -> Result<Value, Failure> {
    let json = serde_json::to_string(message).expect("what came as JSON goes as JSON");
    let turn = content(&json)?;
    let Value::Map(map) = turn else {
        return Ok(turn);
    };
    let mut map = (*map).clone();
    if let Some(Value::Text(role)) = map.get_str("role").cloned() {
        map.set("role", Value::own(role.as_str()));
    }
    Ok(Value::map(map))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In the manner of Qwen3's: methods of strings, slices, a namespace, an optional variable.
    const CHATML: &str = "\
        {%- if messages[0].role == 'system' %}
        {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
        {%- endif %}
        {%- set ns = namespace(last=0) %}
        {%- for message in messages[::-1] %}
        {%- if message.role == 'user' and message.content.startswith('Q') %}{% set ns.last = loop.index %}{% endif %}
        {%- endfor %}
        {%- for message in messages %}
        {%- if message.role != 'system' or not loop.first %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content.strip() + '<|im_end|>' + '\\n' }}
        {%- endif %}
        {%- endfor %}
        {%- if add_generation_prompt %}
        {{- '<|im_start|>assistant\\n' }}
        {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
        {%- endif %}
        {%- endif %}";

    fn request(extra: &str) -> ChatRequest {
        let body = format!(
            r#"{{"messages":[{{"role":"system","content":"S"}},
                {{"role":"user","content":" Q "}},{{"role":"assistant","content":"A"}},
                {{"role":"user","content":"secret"}}]{extra}}}"#
        );
        ChatRequest::from_json(body.as_bytes()).unwrap()
    }

    fn rendered(source: &str, request: &ChatRequest) -> Result<String, Failure> {
        let template = Template::new(source, Some("<s>".to_owned()), None).unwrap();
        let text = template.render(request, request.messages())?;
        Ok(text.as_str().to_owned())
    }

    #[test]
    fn a_conversation_renders_up_to_the_answer() {
        let text = rendered(CHATML, &request("")).unwrap();
        assert_eq!(
            text,
            "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nQ<|im_end|>\n\
             <|im_start|>assistant\nA<|im_end|>\n<|im_start|>user\nsecret<|im_end|>\n\
             <|im_start|>assistant\n"
        );
    }

    #[test]
    fn a_request_may_set_the_templates_own_variables_but_not_the_messages() {
        let request = request(r#","chat_template_kwargs":{"enable_thinking":false,"messages":[]}"#);
        let text = rendered(CHATML, &request).unwrap();
        assert!(
            text.ends_with("assistant\n<think>\n\n</think>\n\n"),
            "{text}"
        );
        assert!(text.contains("secret"));
    }

    #[test]
    fn what_a_template_says_by_way_of_a_refusal_is_the_message_without_the_prompt() {
        let source = "{{ raise_exception('bad turn: ' + messages[3].content + '!') }}";
        let failure = rendered(source, &request("")).unwrap_err();
        assert_eq!(
            (failure.status_code(), failure.text.as_ref()),
            (400, "bad turn: \u{2026}!")
        );
    }

    #[test]
    fn a_template_that_breaks_is_a_422_that_names_the_line_and_quotes_nothing() {
        let source = "\n{{ messages[3].content + 1 }}";
        let failure = rendered(source, &request("")).unwrap_err();
        assert_eq!(
            (failure.reason, failure.status_code()),
            (Reason::JinjaTemplate, 422)
        );
        assert!(failure.text.contains("at its line 2"), "{failure}");
        assert!(!failure.text.contains("secret"), "{failure}");
    }

    #[test]
    fn special_tokens_json_and_the_date_are_at_hand() {
        let source =
            "{{ bos_token }}|{{ messages[0].content | tojson }}|{{ strftime_now('%Y') | length }}";
        let text = rendered(source, &request("")).unwrap();
        assert_eq!(text, r#"<s>|"S"|4"#);
    }

    #[test]
    fn a_template_that_does_not_parse_says_where() {
        let error = Template::new("\n{% if %}", None, None).unwrap_err();
        assert!(error.contains("line 2"), "{error}");
    }

    #[test]
    fn tools_and_calls_reach_the_template_in_the_callers_order() {
        let source = "\
            {%- if tools %}{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}{% endif %}
            {%- for message in messages %}{{ message.role }}:{{ message.content }}
            {%- for call in message.tool_calls %}
            {{- call.function.name }}={{ call.function.arguments | tojson }}
            {%- endfor %};{% endfor %}";
        let body = r#"{"messages":[
            {"role":"user","content":"U"},
            {"role":"assistant","content":null,"tool_calls":[{"id":"c1","type":"function",
                "function":{"name":"f","arguments":"{\"z\":1,\"a\":[1,2]}"}}]},
            {"role":"tool","tool_call_id":"c1","content":"T"}],
            "tools":[{"type":"function","function":{"name":"f","description":"<d>",
                "parameters":{"type":"object","properties":{"z":{},"a":{}}}}}]}"#;
        let request = ChatRequest::from_json(body.as_bytes()).unwrap();
        let tool = r#"{"type": "function", "function": {"name": "f", "description": "<d>", "#;
        assert_eq!(
            rendered(source, &request).unwrap(),
            format!(
                "{tool}\"parameters\": {{\"type\": \"object\", \"properties\": \
                 {{\"z\": {{}}, \"a\": {{}}}}}}}}}}\n\
                 user:U;assistant:f={{\"z\": 1, \"a\": [1, 2]}};tool:T;"
            )
        );
        let never = body.replace("\"tools\":", "\"tool_choice\":\"none\",\"tools\":");
        let never = ChatRequest::from_json(never.as_bytes()).unwrap();
        assert!(rendered(source, &never).unwrap().starts_with("user:U;"));
    }

    #[test]
    fn tools_that_are_absent_are_defined_and_none() {
        let source = "{{ tools is defined }} {{ tools is none }} {{ documents is none }}";
        assert_eq!(rendered(source, &request("")).unwrap(), "True True True");
    }

    #[test]
    fn the_common_switches_are_variables_that_kwargs_outweigh() {
        let source = "{{ enable_thinking }} {{ reasoning_effort }}";
        let switches = r#","enable_thinking":false,"reasoning_effort":"low""#;
        assert_eq!(rendered(source, &request(switches)).unwrap(), "False low");
        let both = format!(r#"{switches},"chat_template_kwargs":{{"enable_thinking":1}}"#);
        assert_eq!(rendered(source, &request(&both)).unwrap(), "1 low");
    }

    #[test]
    fn a_message_that_goes_on_is_the_end_of_the_prompt() {
        let body = r#"{"messages":[{"role":"user","content":"2 + 3?"},
            {"role":"assistant","content":"2 + 3 ="}],"continue_final_message":true}"#;
        let request = ChatRequest::from_json(body.as_bytes()).unwrap();
        let text = rendered(CHATML, &request).unwrap();
        assert!(text.ends_with("<|im_start|>assistant\n2 + 3 ="), "{text}");
        let silent = rendered("{{ messages[0].content }}", &request).unwrap_err();
        assert_eq!(silent.param.as_deref(), Some("continue_final_message"));
    }

    #[test]
    fn json_may_be_indented() {
        let source = "{{ messages[0] | tojson(indent=2) }}";
        let expected = "{\n  \"role\": \"system\",\n  \"content\": \"S\"\n}";
        assert_eq!(rendered(source, &request("")).unwrap(), expected);
    }
}
