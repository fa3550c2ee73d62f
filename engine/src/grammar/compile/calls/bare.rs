//! Gemma's values: objects with bare keys, strings between quotation marks of their own, and no
//! blanks. Bounds of strings and arrays are not kept; kinds, names and choices are.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::lark::{Lark, literal};
use super::{member_names, refuse_name};
use crate::failure::Failure;

/// Writes rules of values; each is a part of a rule.
pub(super) struct Values<'a> {
    lark: &'a mut Lark,
    rules: usize,
    /// Rules of what was referred to.
    known: BTreeMap<String, String>,
}

impl<'a> Values<'a> {
    /// `quote` stands in the grammar for the quotation mark, `text` for what it is where it has no
    /// token.
    pub(super) fn new(quote: &str, text: Option<&str>, lark: &'a mut Lark) -> Self {
        match text {
            None => {
                lark.rule("QUOTED", super::MARKED_TEXT);
                lark.rule("quoted", &format!("{quote} QUOTED? {quote}"));
            }
            Some(text) => {
                lark.rule(
                    &format!("quoted_end[suffix={}]", literal(text)),
                    "/(?s:.*)/",
                );
                lark.rule("quoted", &format!("{quote} quoted_end"));
            }
        }
        lark.rule("quote", quote);
        lark.rule("KEY", "/[A-Za-z_][A-Za-z0-9_]{0,63}/");
        let scalar = lark.schema(json!({"type": ["boolean", "null", "number"]}));
        lark.rule("any", &format!("quoted | {scalar} | any_list | any_object"));
        lark.rule("any_list", "\"[\" (any (\",\" any)*)? \"]\"");
        lark.rule("any_member", "KEY \":\" any");
        lark.rule(
            "any_object",
            "\"{\" (any_member (\",\" any_member)*)? \"}\"",
        );
        Self {
            lark,
            rules: 0,
            known: BTreeMap::new(),
        }
    }

    /// The arguments of one function.
    pub(super) fn root(&mut self, schema: &Value) -> Result<String, Failure> {
        self.known.clear();
        self.object(schema, schema)
    }

    fn value(&mut self, schema: &Value, root: &Value) -> Result<String, Failure> {
        if let Some(target) = schema.get("$ref").and_then(Value::as_str) {
            return self.referred(target, root);
        }
        if let Some(one) = schema.get("const") {
            return Ok(constant(one));
        }
        if let Some(Value::Array(all)) = schema.get("enum") {
            let all: Vec<String> = all.iter().map(constant).collect();
            return Ok(choice(&all));
        }
        for keyword in ["anyOf", "oneOf"] {
            if let Some(Value::Array(all)) = schema.get(keyword) {
                let all: Result<Vec<_>, _> = all.iter().map(|it| self.value(it, root)).collect();
                return Ok(choice(&all?));
            }
        }
        match schema.get("type") {
            Some(Value::String(kind)) => self.kind(kind, schema, root),
            Some(Value::Array(kinds)) => {
                let kinds = kinds.iter().filter_map(Value::as_str);
                let all: Result<Vec<_>, _> = kinds.map(|it| self.kind(it, schema, root)).collect();
                Ok(choice(&all?))
            }
            Some(_) | None => Ok("any".to_owned()),
        }
    }

    fn kind(&mut self, kind: &str, schema: &Value, root: &Value) -> Result<String, Failure> {
        match kind {
            "string" => Ok("quoted".to_owned()),
            "object" => self.object(schema, root),
            "array" => {
                let item = match schema.get("items") {
                    Some(items) => self.value(items, root)?,
                    None => "any".to_owned(),
                };
                let item = self.named(&item);
                let list = format!("{item} (\",\" {item})*");
                let is_never_empty = schema.get("minItems").is_some_and(|least| *least != 0);
                Ok(if is_never_empty {
                    format!("\"[\" {list} \"]\"")
                } else {
                    format!("\"[\" ({list})? \"]\"")
                })
            }
            _ => {
                let mut alone = schema.clone();
                alone["type"] = kind.into();
                Ok(self.lark.schema(alone))
            }
        }
    }

    /// Required members first, as models write them; then those of the others that it wants.
    fn object(&mut self, schema: &Value, root: &Value) -> Result<String, Failure> {
        let mut members = vec![];
        for (name, member, is_required) in member_names(schema) {
            if name.contains([':', '=', '"', '\'', '{', '}', ',', '<']) || name.trim() != name {
                refuse_name(is_required)?;
                continue;
            }
            let value = self.value(member, root)?;
            let member = self.named(&format!("{} {value}", literal(&format!("{name}:"))));
            members.push((member, is_required));
        }
        if members.is_empty() && schema.get("properties").is_none() {
            return Ok("any_object".to_owned());
        }
        members.sort_by_key(|(_, is_required)| !is_required);
        // From the last to the first: what may follow a member, and what may begin the list.
        let (mut after, mut first) = (String::new(), "\"\"".to_owned());
        for (member, is_required) in members.iter().rev() {
            let begins = format!("{member} {after}");
            if *is_required {
                after = self.named(&format!("\",\" {begins}"));
                first = begins;
            } else {
                first = self.named(&format!("{begins} | {first}"));
                after = self.named(&format!("(\",\" {member})? {after}"));
            }
        }
        Ok(format!("\"{{\" {first} \"}}\""))
    }

    fn referred(&mut self, target: &str, root: &Value) -> Result<String, Failure> {
        if let Some(rule) = self.known.get(target) {
            return Ok(rule.clone());
        }
        let found = target.strip_prefix('#').and_then(|it| root.pointer(it));
        let found = found.ok_or_else(|| super::super::schema::refusal("tools", "ref '"))?;
        // Named before it is written: it may refer to itself.
        let rule = self.next_rule();
        self.known.insert(target.to_owned(), rule.clone());
        let value = self.value(found, root)?;
        self.lark.rule(&rule, &value);
        Ok(rule)
    }

    fn named(&mut self, body: &str) -> String {
        let rule = self.next_rule();
        self.lark.rule(&rule, body);
        rule
    }

    fn next_rule(&mut self) -> String {
        self.rules += 1;
        format!("v{}", self.rules)
    }
}

fn constant(value: &Value) -> String {
    match value {
        Value::String(text) => format!("quote {} quote", literal(text)),
        Value::Array(_) | Value::Object(_) => "any".to_owned(),
        Value::Bool(_) | Value::Null | Value::Number(_) => literal(&value.to_string()),
    }
}

fn choice(all: &[String]) -> String {
    format!("({})", all.join(" | "))
}
