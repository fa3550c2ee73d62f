//! Chat templates: Jinja as `transformers` renders it.

use std::collections::BTreeMap;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value};
use minijinja::{Environment, ErrorKind};

use super::clock;
use crate::chat::ChatRequest;
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
        environment.add_filter("tojson", to_json);
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
    pub(super) fn render(&self, request: &ChatRequest) -> Result<String, Failure> {
        let mut variables: BTreeMap<String, Value> = match &request.template_variables {
            None => BTreeMap::new(),
            Some(raw) => serde_json::from_str(raw.get())
                .map_err(|_| Failure::client("chat_template_kwargs must be an object"))?,
        };
        variables.insert("messages".to_owned(), Value::from(Serde(&request.messages)));
        variables.insert("add_generation_prompt".to_owned(), Value::from(true));
        for (name, token) in [
            ("bos_token", &self.bos_token),
            ("eos_token", &self.eos_token),
        ] {
            variables.insert(
                name.to_owned(),
                Value::from(token.as_deref().unwrap_or_default()),
            );
        }
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
            Failure::new(Reason::JinjaTemplate, text)
        })
    }
}

fn raise_exception(message: &str) -> Result<String, minijinja::Error> {
    Err(minijinja::Error::new(
        ErrorKind::InvalidOperation,
        message.to_owned(),
    ))
}

/// As `transformers` has it: plain JSON, nothing escaped for HTML.
fn to_json(value: &Value) -> Result<String, minijinja::Error> {
    serde_json::to_string(value).map_err(|cause| {
        minijinja::Error::new(ErrorKind::BadSerialization, "tojson").with_source(cause)
    })
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

    fn template(source: &str) -> Template {
        Template::new(source.to_owned(), Some("<s>".to_owned()), None).unwrap()
    }

    #[test]
    fn a_conversation_renders_up_to_the_answer() {
        let text = template(CHATML).render(&request("")).unwrap();
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
        let text = template(CHATML).render(&request).unwrap();
        assert!(
            text.ends_with("assistant\n<think>\n\n</think>\n\n"),
            "{text}"
        );
        assert!(text.contains("secret"));
    }

    #[test]
    fn a_refusal_is_a_422_that_does_not_quote_the_prompt() {
        let source = "{{ raise_exception('bad turn: ' + messages[3].content) }}";
        let failure = template(source).render(&request("")).unwrap_err();
        assert_eq!(
            (failure.reason, failure.status_code()),
            (Reason::JinjaTemplate, 422)
        );
        assert!(!failure.text.contains("secret"), "{failure}");
    }

    #[test]
    fn variables_that_are_no_object_are_the_callers_fault() {
        let failure = template(CHATML).render(&request(r#","chat_template_kwargs":[1]"#));
        assert_eq!(failure.unwrap_err().reason, Reason::ClientError);
    }

    #[test]
    fn special_tokens_json_and_the_date_are_at_hand() {
        let source =
            "{{ bos_token }}|{{ messages[0].content | tojson }}|{{ strftime_now('%Y') | length }}";
        let text = template(source).render(&request("")).unwrap();
        assert_eq!(text, r#"<s>|"S"|4"#);
    }

    #[test]
    fn a_template_that_does_not_parse_says_where() {
        let error = Template::new("{% if %}".to_owned(), None, None).unwrap_err();
        assert!(error.contains("chat:1"), "{error}");
    }
}
