//! Chat templates: Jinja as `transformers` renders it.

use std::collections::BTreeMap;
use std::error::Error as _;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Value;
use minijinja::{Environment, ErrorKind};
use serde::Serialize;

use super::{clock, json};
use crate::chat::{ChatRequest, Message};
use crate::failure::{Failure, Reason};

/// The only template of its environment.
const NAME: &str = "chat";

#[derive(Debug)]
pub(super) struct Template {
    environment: Environment<'static>,
    bos_token: Option<String>,
    eos_token: Option<String>,
}

impl Template {
    /// # Errors
    /// The template does not parse; the text says where.
    pub(super) fn new(
        source: String,
        bos_token: Option<String>,
        eos_token: Option<String>,
    ) -> Result<Self, String> {
        let mut environment = Environment::new();

        let syntax = SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build();
        environment.set_syntax(syntax.expect("only the whitespace differs from the default"));
        // Templates call methods of Python's strings and lists.
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", |format: &str| clock::now().format(format));
        environment.add_filter("tojson", json::to_json);
        environment
            .add_template_owned(NAME, source)
            .map_err(|cause| cause.to_string())?;
        Ok(Self {
            environment,
            bos_token,
            eos_token,
        })
    }

    /// The prompt, up to where the assistant's answer begins.
    ///
    /// # Errors
    /// 422: the template refuses the messages. The cause may quote them, so only its kind is told.
    pub(super) fn render(
        &self,
        request: &ChatRequest,
        messages: &[Message],
    ) -> Result<String, Failure> {
        self.try_render(request, messages)
            .map_err(Unrendered::into_failure)
    }

    /// The same, telling a template that breaks from one that says no.
    pub(super) fn try_render(
        &self,
        request: &ChatRequest,
        messages: &[Message],
    ) -> Result<String, Unrendered> {
        let variables = self
            .variables(request, messages)
            .map_err(Unrendered::Failed)?;
        let rendered = self
            .environment
            .get_template(NAME)
            .and_then(|it| it.render(variables));
        rendered.map_err(|cause| {
            let at = cause
                .line()
                .map_or_else(String::new, |line| format!(" at its line {line}"));
            let text = match cause.kind() {
                ErrorKind::InvalidOperation => format!(
                    "the model's chat template refuses this conversation{at}; check the order of \
                     the messages' roles"
                ),
                kind => format!("the model's chat template failed{at}: {kind}"),
            };
            let failure = Failure::new(Reason::JinjaTemplate, text);
            if has_raised(&cause) {
                Unrendered::Raised(failure)
            } else {
                Unrendered::Failed(failure)
            }
        })
    }

    fn variables(
        &self,
        request: &ChatRequest,
        messages: &[Message],
    ) -> Result<BTreeMap<String, Value>, Failure> {
        let wishes = &request.template;
        let mut variables: BTreeMap<String, Value> = match &wishes.variables {
            None => BTreeMap::new(),
            Some(json) => serde_json::from_str(json.as_str())
                .map_err(|_| Failure::client("chat_template_kwargs must be an object"))?,
        };
        if let Some(thinking) = wishes.thinking {
            let name = "enable_thinking".to_owned();
            variables.entry(name).or_insert(Value::from(thinking));
        }
        if let Some(effort) = &wishes.effort {
            let name = "reasoning_effort".to_owned();
            variables
                .entry(name)
                .or_insert(Value::from(effort.as_str()));
        }
        let tools = request
            .tools
            .raw
            .as_ref()
            .filter(|_| request.tools.may_be_called());
        let given = [
            ("messages", ordered(messages)?),
            // Absent ones are there as well, and none: that is what templates are written for.
            ("tools", tools.map_or(Ok(Value::from(())), ordered)?),
            ("documents", Value::from(())),
            ("add_generation_prompt", Value::from(true)),
            (
                "bos_token",
                Value::from(self.bos_token.as_deref().unwrap_or_default()),
            ),
            (
                "eos_token",
                Value::from(self.eos_token.as_deref().unwrap_or_default()),
            ),
        ];
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

/// Marks an error as the template's own.
#[derive(Debug, thiserror::Error)]
#[error("raised by the template")]
struct Raised;

fn raise_exception(message: &str) -> Result<String, minijinja::Error> {
    let error = minijinja::Error::new(ErrorKind::InvalidOperation, message.to_owned());
    Err(error.with_source(Raised))
}

fn has_raised(cause: &minijinja::Error) -> bool {
    let mut source = cause.source();
    while let Some(error) = source {
        if error.is::<Raised>() {
            return true;
        }
        source = error.source();
    }
    false
}

/// Through JSON, which keeps the caller's order of keys: models are trained on one order.
fn ordered(value: &(impl Serialize + ?Sized)) -> Result<Value, Failure> {
    let json = serde_json::to_string(value).expect("what came as JSON goes as JSON");
    serde_json::from_str(&json)
        .map_err(|_| Failure::client("messages or tools are nested too deeply"))
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
        let template = Template::new(source.to_owned(), Some("<s>".to_owned()), None).unwrap();
        template.render(request, request.messages())
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
    fn a_refusal_is_a_422_that_does_not_quote_the_prompt() {
        let source = "{{ raise_exception('bad turn: ' + messages[3].content) }}";
        let failure = rendered(source, &request("")).unwrap_err();
        assert_eq!(
            (failure.reason, failure.status_code()),
            (Reason::JinjaTemplate, 422)
        );
        assert!(!failure.text.contains("secret"), "{failure}");
    }

    #[test]
    fn variables_that_are_no_object_are_the_callers_fault() {
        let failure = rendered(CHATML, &request(r#","chat_template_kwargs":[1]"#));
        assert_eq!(failure.unwrap_err().reason, Reason::ClientError);
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
        let error = Template::new("{% if %}".to_owned(), None, None).unwrap_err();
        assert!(error.contains("chat:1"), "{error}");
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
    fn json_may_be_indented() {
        let source = "{{ messages[0] | tojson(indent=2) }}";
        let expected = "{\n  \"role\": \"system\",\n  \"content\": \"S\"\n}";
        assert_eq!(rendered(source, &request("")).unwrap(), expected);
    }
}
