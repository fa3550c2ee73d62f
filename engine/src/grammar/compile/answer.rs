//! What a request demands of its answer, as a grammar.

use llguidance::regex_to_lark;
use serde_json::json;

use super::calls::{self, MARKED_TEXT};
use super::family::Family;
use super::lark::{Lark, literal};
use super::schema::Allowance;
use crate::chat::{ChatRequest, Format};
use crate::failure::Failure;
use crate::text::CallFormat;

/// Blanks that may come first; models often begin a line of their own after a thought.
const BREAK: &str = "/[ \\n]{1,4}/";
pub(super) const BREAK_MAX: usize = 4;
/// Bytes of all schemas of a request.
pub(super) const SCHEMAS_BYTES_MAX: usize = 256 << 10;

/// What an answer may be.
struct Choices {
    calls: bool,
    form: Option<FormRule>,
    text: bool,
}

/// The rule of an answer that has a form.
struct FormRule {
    name: String,
    kind: FormKind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum FormKind {
    /// JSON: blanks may stand before it, as they may within.
    Json,
    /// The text counts to the letter, so no blanks may stand before it.
    Text,
}

/// Which field of the request a refusal is about.
pub(super) fn field(request: &ChatRequest) -> &'static str {
    match (&request.format, request.tools.may_be_called()) {
        (Format::Schema(_), false) => "response_format",
        (Format::Schema(_), true) => "response_format or tools",
        (Format::Choice(_), _) => "guided_choice",
        (Format::Regex(_), _) => "guided_regex",
        (Format::Json | Format::Text, _) => "tools",
    }
}

pub(super) fn write(request: &ChatRequest, family: &Family) -> Result<Lark, Failure> {
    check_size(request)?;
    let mut lark = Lark::default();
    let mut allowance = Allowance::default();
    let form = form(&request.format, &mut allowance, &mut lark)?;
    let must_call = request.tools.must_be_called();
    let choices = Choices {
        calls: request.tools.may_be_called() && request.is_chat(),
        text: form.is_none() && !must_call,
        form: form.filter(|_| !must_call),
    };
    if choices.calls {
        calls::write(request, family, &mut allowance, &mut lark)?;
    }
    if family.format() == CallFormat::Harmony && request.is_chat() {
        write_harmony(&choices, family, &mut lark);
    } else {
        write_start(&choices, family, &mut lark);
    }
    Ok(lark)
}

fn form(
    format: &Format,
    allowance: &mut Allowance,
    lark: &mut Lark,
) -> Result<Option<FormRule>, Failure> {
    let rule = |name: &str, kind| {
        let name = name.to_owned();
        Ok(Some(FormRule { name, kind }))
    };
    match format {
        Format::Choice(words) => {
            let words: Vec<String> = words.iter().map(|word| literal(word)).collect();
            lark.rule("words", &words.join(" | "));
            rule("words", FormKind::Text)
        }
        Format::Json => rule(&lark.schema(json!({"type": "object"})), FormKind::Json),
        Format::Regex(regex) => {
            let regex = regex_to_lark(regex, "");
            lark.rule("PATTERN", &format!("/{regex}/"));
            rule("PATTERN", FormKind::Text)
        }
        Format::Schema(raw) => {
            let schema = allowance.read("response_format", raw)?;
            rule(&lark.schema(schema), FormKind::Json)
        }
        Format::Text => Ok(None),
    }
}

fn check_size(request: &ChatRequest) -> Result<(), Failure> {
    let format = match &request.format {
        Format::Schema(raw) => raw.as_str().len(),
        Format::Choice(_) | Format::Json | Format::Regex(_) | Format::Text => 0,
    };
    let tools = request.tools.list.iter();
    let tools = tools.filter_map(|tool| tool.parameters.as_ref());
    let all = tools.fold(format, |sum, raw| sum.saturating_add(raw.as_str().len()));
    if all > SCHEMAS_BYTES_MAX {
        let field = field(request);
        return Err(Failure::client(format!(
            "{field} holds schemas of more than {SCHEMAS_BYTES_MAX} bytes together"
        )));
    }
    Ok(())
}

fn write_start(choices: &Choices, family: &Family, lark: &mut Lark) {
    lark.rule("BREAK", BREAK);
    let mut all = vec![];
    all.extend(choices.form.as_ref().map(|form| match form.kind {
        FormKind::Json => format!("BREAK? {}", form.name),
        FormKind::Text => form.name.clone(),
    }));
    if choices.text {
        all.push(if choices.calls {
            calls::write_text_before_calls(family, lark)
        } else {
            "/(?s:.*)/".to_owned()
        });
    }
    if choices.calls {
        // Readers take blanks away after a thought, and nowhere else.
        let blanks = match family.dialect().reasoning {
            Some(_) => "BREAK? ",
            None => "",
        };
        all.push(format!("{blanks}calls"));
    }
    lark.rule("start", &all.join(" | "));
}

/// Thoughts are a message of their own, so they are part of the grammar.
fn write_harmony(choices: &Choices, family: &Family, lark: &mut Lark) {
    let mark = |mark| family.mark(mark);
    let (channel, message) = (mark("<|channel|>"), mark("<|message|>"));
    let (start, end) = (mark("<|start|>"), mark("<|end|>"));
    lark.rule("MESSAGE_TEXT", MARKED_TEXT);
    lark.rule(
        "thought",
        &format!("{channel} \"analysis\" {message} MESSAGE_TEXT? {end} {start} \"assistant\""),
    );
    let mut all = vec![];
    if let Some(FormRule { name, kind }) = &choices.form {
        let hint = match kind {
            FormKind::Json => "json_hint?",
            FormKind::Text => "",
        };
        all.push(format!("{channel} \"final\" {hint} {message} {name}"));
        if *kind == FormKind::Json {
            let constrain = mark("<|constrain|>");
            lark.rule("json_hint", &format!("\" \"? {constrain} \"json\""));
        }
    }
    if choices.text {
        all.push(format!("{channel} \"final\" {message} MESSAGE_TEXT?"));
    }
    if choices.calls {
        all.push("calls".to_owned());
    }
    lark.rule("start", &format!("thought? ({})", all.join(" | ")));
}
