//! Calls of a request's functions, as each family writes them. What these rules allow is what
//! `text::calls` reads.

mod bare;
mod tags;

use serde_json::{Value, json};

use super::family::{Family, Syntax};
use super::lark::{Lark, literal};
use super::schema::Allowance;
use crate::chat::{CALLS_MAX, ChatRequest, Parallel, Tool, ToolChoice};
use crate::failure::Failure;
use crate::text::CallFormat;

/// Text up to the next mark, which is a token of its own.
pub(super) const MARKED_TEXT: &str = "/(?s:.+)/";

/// A function and what its arguments must fit.
struct Function<'a> {
    tool: &'a Tool,
    schema: Value,
}

/// Writes the rule `calls`: at least one call of a function that may be called.
pub(super) fn write(
    request: &ChatRequest,
    family: &Family,
    allowance: &mut Allowance,
    lark: &mut Lark,
) -> Result<(), Failure> {
    let tools = &request.tools;
    let is_meant = |tool: &&Tool| match &tools.choice {
        ToolChoice::Named(name) => tool.name == *name,
        ToolChoice::Auto | ToolChoice::Required => true,
        ToolChoice::Never => false,
    };
    let mut functions = vec![];
    for tool in tools.list.iter().filter(is_meant) {
        let schema = match &tool.parameters {
            Some(raw) => arguments(allowance.read("tools", raw)?),
            None => json!({"type": "object"}),
        };
        functions.push(Function { tool, schema });
    }
    let more = match tools.parallel {
        Parallel::Allowed => CALLS_MAX - 1,
        Parallel::One => 0,
    };
    match family.format() {
        CallFormat::FunctionGemma => write_gemma(&functions, family, "<escape>", lark)?,
        CallFormat::Gemma => write_gemma(&functions, family, "<|\"|>", lark)?,
        CallFormat::Harmony => write_harmony(&functions, family, lark),
        CallFormat::Llama => {
            write_bodies(&functions, "parameters", lark);
            lark.rule("calls", "body");
        }
        CallFormat::Mistral => write_mistral(&functions, family, more, lark),
        CallFormat::Tagged => {
            match family.syntax() {
                Syntax::Json => write_bodies(&functions, "arguments", lark),
                Syntax::Named => tags::write(&functions, lark)?,
            }
            let close = family.mark("</tool_call>");
            lark.rule("inner", &format!("\"\\n\" body \"\\n\" {close}"));
        }
    }
    if let Some(marks) = family.format().marks() {
        let is_one = family.format() == CallFormat::Mistral && family.syntax() == Syntax::Json;
        let more = if is_one { 0 } else { more };
        let between = match family.format() {
            CallFormat::Tagged => "\"\\n\"",
            CallFormat::FunctionGemma
            | CallFormat::Gemma
            | CallFormat::Harmony
            | CallFormat::Llama
            | CallFormat::Mistral => "",
        };
        let open = family.mark(marks.open);
        lark.rule("call", &format!("{open} inner"));
        let more = at_most(&format!("{between} call"), more);
        lark.rule("opened", &format!("inner {more}"));
        lark.rule("calls", &format!("{open} opened"));
    }
    Ok(())
}

/// Lark has no rule for repeating something zero times.
fn at_most(part: &str, count: usize) -> String {
    if count == 0 {
        String::new()
    } else {
        format!("({part}){{0,{count}}}")
    }
}

/// Arguments are an object, whatever else the schema says or leaves open.
fn arguments(mut schema: Value) -> Value {
    if let Some(members) = schema.as_object_mut()
        && !members.contains_key("type")
    {
        members.insert("type".to_owned(), "object".into());
    }
    schema
}

/// Text that may be empty, and calls that may follow it.
pub(super) fn write_text_before_calls(family: &Family, lark: &mut Lark) -> String {
    let Some(marks) = family.format().marks() else {
        // A call is told by how the answer begins.
        lark.rule("SAID", "/[^{\\[\\s](?s:.*)/");
        return "SAID? calls?".to_owned();
    };
    if family.id(marks.open).is_some() {
        lark.rule("SAID", MARKED_TEXT);
        return "SAID? calls?".to_owned();
    }
    // Text that may hold the beginning of a mark would swallow it: so it ends with the mark, or holds
    // none.
    let (open, text) = (escape(marks.open), literal(marks.open));
    lark.rule("SAID", &format!("/(?s:.+)/ & ~/(?s:.*){open}(?s:.*)/"));
    lark.rule(&format!("said_and_open[suffix={text}]"), "/(?s:.*)/");
    "SAID? | said_and_open opened".to_owned()
}

/// So that a regular expression means the text, and stays between its slashes.
fn escape(text: &str) -> String {
    let is_plain = |char: char| char.is_ascii_alphanumeric() || "<>_".contains(char);
    let mut out = String::new();
    for char in text.chars() {
        if !is_plain(char) {
            out.push('\\');
        }
        out.push(char);
    }
    out
}

/// The rule `body`: one of the functions by its name, with its arguments, in JSON.
fn write_bodies(functions: &[Function<'_>], member: &str, lark: &mut Lark) {
    let bodies = functions.iter().map(|function| {
        let schema = lark.schema(function.schema.clone());
        let head = format!("{{\"name\": \"{}\", \"{member}\": ", function.tool.name);
        format!("{} {schema} \"}}\"", literal(&head))
    });
    let bodies: Vec<String> = bodies.collect();
    lark.rule("body", &bodies.join(" | "));
}

fn write_mistral(functions: &[Function<'_>], family: &Family, more: usize, lark: &mut Lark) {
    if family.syntax() == Syntax::Json {
        write_bodies(functions, "arguments", lark);
        let more = at_most("\", \" body", more);
        lark.rule("inner", &format!("\"[\" body {more} \"]\""));
        return;
    }
    let args = family.mark("[ARGS]");
    let calls = functions.iter().map(|function| {
        let schema = lark.schema(function.schema.clone());
        format!("{} {args} {schema}", literal(&function.tool.name))
    });
    let calls: Vec<String> = calls.collect();
    lark.rule("inner", &calls.join(" | "));
}

/// One call: a call is the end of an answer.
fn write_harmony(functions: &[Function<'_>], family: &Family, lark: &mut Lark) {
    let mark = |mark| family.mark(mark);
    let (channel, message) = (mark("<|channel|>"), mark("<|message|>"));
    let constrain = mark("<|constrain|>");
    let calls = functions.iter().map(|function| {
        let schema = lark.schema(function.schema.clone());
        let head = literal(&format!("commentary to=functions.{} ", function.tool.name));
        format!("{channel} {head} {constrain} \"json\" {message} {schema}")
    });
    let calls: Vec<String> = calls.collect();
    lark.rule("calls", &calls.join(" | "));
}

fn write_gemma(
    functions: &[Function<'_>],
    family: &Family,
    quote: &str,
    lark: &mut Lark,
) -> Result<(), Failure> {
    let marks = family.format().marks().expect("Gemma's calls have marks");
    let close = family.mark(marks.close);
    let text = family.id(quote).is_none().then_some(quote);
    let mut values = bare::Values::new(&family.mark(quote), text, lark);
    let mut calls = vec![];
    for function in functions {
        let head = literal(&format!("call:{}", function.tool.name));
        let object = values.root(&function.schema)?;
        calls.push(format!("{head} {object} {close}"));
    }
    lark.rule("inner", &calls.join(" | "));
    Ok(())
}

/// The members of an object by name, and whether each must be there.
fn member_names(schema: &Value) -> impl Iterator<Item = (&str, &Value, bool)> {
    let required = schema.get("required").and_then(Value::as_array);
    let members = schema.get("properties").and_then(Value::as_object);
    members.into_iter().flatten().map(move |(name, member)| {
        let is_required = required.is_some_and(|all| all.iter().any(|it| it == name.as_str()));
        (name.as_str(), member, is_required)
    })
}

/// A member that the family cannot write is left out where it may be.
fn refuse_name(is_required: bool) -> Result<(), Failure> {
    if is_required {
        let text = "tools requires a property whose name this model cannot write";
        return Err(Failure::client(text));
    }
    Ok(())
}
