//! Whether a folder's chat template renders what requests will ask of it. A template that fails here
//! would fail in front of a consumer, so its model is not offered to any.

use std::path::Path;

use super::template::{Template, Unrendered};
use super::{RawToken, TOKENIZER_CONFIG, TokenizerConfig, chat_template, parsed_if_any};
use crate::chat::ChatRequest;
use crate::model::ModelError;

/// What the check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TemplateCheck {
    /// There is no template.
    Absent,
    /// It cannot be read at all, and a load says so.
    Damaged(String),
    /// Where it failed, and on what.
    Fails(String),
    Renders,
}

/// One shape of conversation.
struct Probe {
    name: &'static str,
    body: &'static str,
    rule: Rule,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// A template may say no, but not break. gpt-oss's own does: its parser keeps such text out of
    /// answers, so only a client who makes it up hears so.
    MayRefuse,
    Must,
    /// Only where the template takes tools: requests with tools go to no other.
    MustWithTools,
}

/// Roles alternate, and ids of calls have nine letters: some templates insist on that. Pictures are
/// not among the shapes, because the engine takes none.
const PROBES: [Probe; 5] = [
    Probe {
        name: "a plain chat",
        body: r#"{"messages":[{"role":"user","content":"Hi."},
            {"role":"assistant","content":"Hello."},{"role":"user","content":"How are you?"}]}"#,
        rule: Rule::Must,
    },
    Probe {
        name: "a turn with channel tags",
        body: r#"{"messages":[{"role":"user","content":"Hi."},{"role":"assistant","content":
            "<|channel|>analysis<|message|>Greet.<|end|><|start|>assistant<|channel|>final<|message|>Hello."},
            {"role":"user","content":"How are you?"}]}"#,
        rule: Rule::MayRefuse,
    },
    Probe {
        name: "a turn that is all thought",
        body: r#"{"messages":[{"role":"user","content":"Hi."},
            {"role":"assistant","content":"<think>\nGreet.\n</think>\n\n"},
            {"role":"user","content":"How are you?"}]}"#,
        rule: Rule::Must,
    },
    Probe {
        name: "a call of a tool",
        body: r#"{"messages":[{"role":"user","content":"Weather?"},
            {"role":"assistant","content":"I look.","tool_calls":[{"id":"call00001","type":"function",
            "function":{"name":"weather","arguments":"{\"city\":\"Bern\",\"days\":2}"}}]},
            {"role":"tool","tool_call_id":"call00001","name":"weather","content":"{\"sun\":true}"}],
            "tools":[{"type":"function","function":{"name":"weather","description":"Tells it.",
            "parameters":{"type":"object","properties":{"city":{"type":"string","description":"Where."},
            "days":{"type":"integer","description":"For how long."}},"required":["city"]}}}]}"#,
        rule: Rule::MustWithTools,
    },
    Probe {
        name: "a call of a tool without content",
        body: r#"{"messages":[{"role":"user","content":"Weather?"},
            {"role":"assistant","content":null,"tool_calls":[{"id":"call00001","type":"function",
            "function":{"name":"weather","arguments":"{}"}}]},
            {"role":"tool","tool_call_id":"call00001","name":"weather","content":null}],
            "tools":[{"type":"function","function":{"name":"weather","description":"Tells it.",
            "parameters":{"type":"object","properties":{}}}}]}"#,
        rule: Rule::MustWithTools,
    },
];

/// Renders each shape with the template that the engine would use. Reads no weights.
#[must_use]
pub fn check_template(folder: &Path) -> TemplateCheck {
    match checked(folder) {
        Ok(()) => TemplateCheck::Renders,
        Err(Flaw::None) => TemplateCheck::Absent,
        Err(Flaw::At(text)) => TemplateCheck::Fails(text),
        Err(Flaw::Damage(text)) => TemplateCheck::Damaged(text),
    }
}

enum Flaw {
    At(String),
    Damage(String),
    /// Nothing to find one in.
    None,
}

impl From<ModelError> for Flaw {
    fn from(error: ModelError) -> Self {
        Self::Damage(error.to_string())
    }
}

fn checked(folder: &Path) -> Result<(), Flaw> {
    let mut texts: TokenizerConfig = parsed_if_any(folder, TOKENIZER_CONFIG)?;
    let (file, source) = chat_template(folder, texts.chat_template.take())?.ok_or(Flaw::None)?;
    let takes_tools = source.contains("tools");
    let text = |token: Option<RawToken>| token.map(RawToken::into_text);
    let template = Template::new(&source, text(texts.bos_token), text(texts.eos_token))
        .map_err(|cause| Flaw::Damage(format!("{file} is damaged: {cause}")))?;
    for probe in PROBES {
        if probe.rule == Rule::MustWithTools && !takes_tools {
            continue;
        }
        let request = ChatRequest::from_json(probe.body.as_bytes())
            .expect("the shapes are requests as they come");
        match template.try_render(&request, request.messages()) {
            Ok(_) => {}
            Err(Unrendered::Raised(_)) if probe.rule == Rule::MayRefuse => {}
            Err(unrendered) => {
                let why = unrendered.into_failure().text;
                return Err(Flaw::At(format!("{file}, on {}: {why}", probe.name)));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn found(name: &str, text: &str) -> TemplateCheck {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(name), text).unwrap();
        check_template(folder.path())
    }

    fn flaw(template: &str) -> String {
        match found("chat_template.jinja", template) {
            TemplateCheck::Damaged(text) | TemplateCheck::Fails(text) => text,
            other => panic!("{other:?} for {template}"),
        }
    }

    const SOUND: &str = "{% for m in messages %}{{ m.role + m.content }}{% endfor %}";

    #[test]
    fn a_sound_template_renders_wherever_it_stands() {
        assert_eq!(found("chat_template.jinja", SOUND), TemplateCheck::Renders);
        let config = serde_json::json!({ "chat_template": SOUND }).to_string();
        assert_eq!(
            found("tokenizer_config.json", &config),
            TemplateCheck::Renders
        );
        let named = serde_json::json!({"chat_template": [
            {"name": "rag", "template": "{{ nothing.at.all }}"},
            {"name": "default", "template": SOUND}]});
        let config = named.to_string();
        assert_eq!(
            found("tokenizer_config.json", &config),
            TemplateCheck::Renders
        );
        assert_eq!(found("README.md", "no model"), TemplateCheck::Absent);
    }

    #[test]
    fn a_template_that_fails_names_its_file_and_the_shape() {
        let text = flaw("{{ raise_exception('never') }}");
        assert!(
            text.starts_with("chat_template.jinja, on a plain chat: "),
            "{text}"
        );
        let text = flaw("{{ messages[0].nothing.at.all }}");
        assert!(
            text.contains("on a plain chat") && text.contains("line 1"),
            "{text}"
        );
        assert!(flaw("{% if %}").contains("chat_template.jinja is damaged"));
        let config = r#"{"chat_template":7}"#;
        assert!(matches!(
            found("tokenizer_config.json", config),
            TemplateCheck::Damaged(_)
        ));
    }

    #[test]
    fn each_shape_can_fail_alone() {
        let thought = "{{ messages[1].content.split('</think>')[1].strip()[0].upper() }}";
        assert!(
            flaw(&format!(
                "{{% if '</think>' in messages[1].content %}}{thought}{{% endif %}}"
            ))
            .contains("all thought")
        );
        let tools =
            "{% if tools %}{{ messages[1].tool_calls[0].arguments.city.upper() }}{% endif %}";
        assert!(flaw(tools).contains("a call of a tool:"));
        let bare = "{% if tools and not messages[1].content %}{{ tools + 1 }}{% endif %}";
        assert!(flaw(bare).contains("without content"));
        let tags = "{% if '<|channel|>' in messages[1].content %}{{ messages.x.y }}{% endif %}";
        assert!(flaw(tags).contains("channel tags"));
    }

    #[test]
    fn a_template_may_say_no_to_channel_tags_and_to_nothing_else() {
        let refuses = |word: &str| {
            format!(
                "{{% if '{word}' in messages[1].content %}}{{{{ raise_exception('no') }}}}{{% endif %}}"
            )
        };
        let tags = refuses("<|channel|>");
        assert_eq!(found("chat_template.jinja", &tags), TemplateCheck::Renders);
        assert!(flaw(&refuses("Hello.")).contains("a plain chat"));
    }

    #[test]
    fn a_template_without_tools_is_not_asked_for_any() {
        let roles = "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no') }}\
            {% endif %}{% endfor %}";
        assert_eq!(found("chat_template.jinja", roles), TemplateCheck::Renders);
        let with_tools = format!("{roles}{{% if tools %}}{{% endif %}}");
        assert!(flaw(&with_tools).contains("a call of a tool"));
    }

    #[test]
    fn the_templates_of_all_families_render_what_will_be_asked_of_them() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/templates");
        let mut count = 0;
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|it| it == "jinja") {
                let source = fs::read_to_string(&path).unwrap();
                let found = found("chat_template.jinja", &source);
                assert_eq!(found, TemplateCheck::Renders, "{}", path.display());
                count += 1;
            }
        }
        assert!(count >= 9);
    }
}
