//! The beginning of a prompt by name, of the text as it was written: the same turns are spelled the same
//! by one client, and a machine that has read them need not read them again.

use super::conversation::{Content, Message, PastCall};
use super::prompt::Prompt;
use super::{Input, Request};
use crate::ids::{AccountId, ModelIx};
use crate::prefix::{Namer, Prefix, PrefixSecret};

/// Between the parts of a turn, and after it. No escaped text holds them.
const NEXT_PART: &[u8] = &[0];
const NEXT_TURN: &[u8] = &[1];

impl Request<'_> {
    /// The names of its beginning, where one machine gets all of it.
    #[must_use]
    pub fn prefix(&self, secret: &PrefixSecret, account: AccountId, model: ModelIx) -> Prefix {
        let mut namer = secret.namer(account, model);
        // Templates show the functions first.
        part(&mut namer, self.tools.raw.unwrap_or_default());
        match &self.input {
            Input::Conversation(conversation) => {
                let messages = conversation.messages.iter();
                messages.for_each(|message| turn(&mut namer, message));
            }
            Input::Prompts(prompts) => match prompts.as_slice() {
                [Prompt::Text(text)] => namer.push(text.inside().as_bytes()),
                [Prompt::Tokens(tokens)] => {
                    let tokens = tokens.iter().map(|token| token.to_le_bytes());
                    tokens.for_each(|token| namer.push(&token));
                }
                [] | [_, _, ..] => return Prefix::NONE,
            },
        }
        namer.end()
    }
}

fn turn(namer: &mut Namer, message: &Message<'_>) {
    part(namer, message.role.as_str());
    for text in [message.name, message.reasoning, message.call_id] {
        part(namer, text.map_or("", |text| text.inside()));
    }
    match &message.content {
        Content::None => {}
        Content::Text(text) => part(namer, text.inside()),
        Content::Parts(parts) => parts.iter().for_each(|text| part(namer, text.inside())),
    }
    for PastCall {
        id,
        name,
        arguments,
    } in &message.calls
    {
        part(namer, id.map_or("", |id| id.inside()));
        part(namer, name.inside());
        part(namer, arguments.map_or("", |raw| raw.get()));
    }
    namer.push(NEXT_TURN);
}

fn part(namer: &mut Namer, text: &str) {
    namer.push(text.as_bytes());
    namer.push(NEXT_PART);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Api;

    fn prefix(body: &str, account: u64) -> Prefix {
        let secret = PrefixSecret::new([5; 32]);
        let request = Request::read(Api::Chat, body.as_bytes()).unwrap();
        request.prefix(&secret, AccountId(account), ModelIx(0))
    }

    fn chat(turns: &[(&str, &str)]) -> String {
        let turn = |(role, text): &(&str, &str)| serde_json::json!({"role": role, "content": text});
        let messages: Vec<_> = turns.iter().map(turn).collect();
        serde_json::json!({"model": "m", "messages": messages}).to_string()
    }

    #[test]
    fn a_conversation_that_goes_on_begins_as_it_began() {
        let long = "a long story \u{1f600} ".repeat(400);
        let first = [("system", long.as_str()), ("user", "and?")];
        let second = [&first[..], &[("assistant", "so."), ("user", &long)]].concat();
        let (one, two) = (prefix(&chat(&first), 1), prefix(&chat(&second), 1));
        assert!(one.blocks() >= 3, "{one:?}");
        assert!(one.named().zip(two.named()).all(|(one, two)| one == two));
        assert!(two.blocks() > one.blocks());
        let other = prefix(&chat(&first), 2);
        assert_ne!(one, other, "another account's");
    }

    #[test]
    fn the_first_difference_ends_what_is_shared() {
        let long = "word ".repeat(1_000);
        let of = |name: &str| prefix(&chat(&[("system", name), ("user", &long)]), 1);
        let (one, other) = (of("x"), of("y"));
        assert_eq!(one.blocks(), other.blocks());
        assert!(
            one.named()
                .zip(other.named())
                .all(|(one, other)| one != other)
        );
    }
}
