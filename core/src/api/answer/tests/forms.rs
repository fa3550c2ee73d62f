//! A piece is written as the same bytes, whichever form its texts came in.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;

/// What a piece says, owned.
#[derive(Clone, Debug)]
struct Words {
    content: Option<String>,
    thought: Option<String>,
    refusal: Option<String>,
    calls: Option<Vec<Call>>,
    tokens: Vec<Token>,
}

#[derive(Clone, Debug)]
struct Call {
    index: u32,
    id: Option<String>,
    name: Option<String>,
    arguments: String,
}

type Token = (Vec<u8>, i64, Vec<(Vec<u8>, i64)>);

fn words() -> impl Strategy<Value = Words> {
    let text = || option::of(".{0,8}");
    let call = (0..3_u32, text(), text(), ".{0,8}").prop_map(|(index, id, name, arguments)| Call {
        index,
        id,
        name,
        arguments,
    });
    let scored = || (vec(any::<u8>(), 0..4), -9_999_000_000..=0_i64);
    let token =
        (scored(), vec(scored(), 0..3)).prop_map(|((bytes, logprob), top)| (bytes, logprob, top));
    let calls = option::of(vec(call, 0..3));
    (text(), text(), text(), calls, vec(token, 0..3)).prop_map(
        |(content, thought, refusal, calls, tokens)| Words {
            content,
            thought,
            refusal,
            calls,
            tokens,
        },
    )
}

fn tokens(words: &Words) -> Logprobs<'_> {
    let tokens = words.tokens.iter().map(|(bytes, logprob, top)| {
        let top = top.iter().map(|(bytes, logprob)| token(bytes, *logprob));
        TokenLogprobs {
            chosen: token(bytes, *logprob),
            top: top.collect(),
        }
    });
    Logprobs::Plain(tokens.collect())
}

fn plain(words: &Words) -> Piece<'_> {
    Piece {
        content: text(words.content.as_deref()),
        thought: text(words.thought.as_deref()),
        refusal: text(words.refusal.as_deref()),
        calls: words
            .calls
            .as_ref()
            .map(|calls| calls.iter().map(part_of).collect()),
        logprobs: tokens(words),
        finish: None,
    }
}

fn part_of(call: &Call) -> CallPart<'_> {
    CallPart {
        index: call.index,
        id: text(call.id.as_deref()),
        name: text(call.name.as_deref()),
        arguments: PieceText::Plain(&call.arguments),
    }
}

fn text(text: Option<&str>) -> Option<PieceText<'_>> {
    text.map(PieceText::Plain)
}

fn writers() -> impl Iterator<Item = Writer> {
    let by = |api| {
        [
            Writer::direct(api, RequestId(1), 7, "m"),
            Writer::relayed(api, RequestId(1), 7, "m"),
        ]
    };
    [Api::Chat, Api::Completions].into_iter().flat_map(by)
}

/// Everything that a writer makes of these pieces.
fn written(mut writer: Writer, pieces: &[&Piece<'_>]) -> String {
    let mut out = vec![];
    let mut whole = WholeAnswer::relayed();
    for piece in pieces {
        writer.write_piece(0, piece, &mut out).unwrap();
        whole.push(piece).unwrap();
    }
    let finish = FinishReason::Stop;
    writer.write_whole(&[(&whole, finish)], AnswerUsage::default(), &mut out);
    String::from_utf8(out).unwrap()
}

proptest! {
    #[test]
    fn escaped_and_plain_pieces_are_written_as_the_same_bytes(words in words()) {
        let plain = plain(&words);
        // What our engine says is read as any provider's chunk.
        let mut chunk = vec![];
        chat().write_piece(0, &plain, &mut chunk).unwrap();
        let chunk = String::from_utf8(chunk).unwrap();
        let mut count = 0;
        Dialect::ChatChunks.read(&chunk, |escaped| {
            count += 1;
            assert_eq!(escaped.tally(), plain.tally());
            for writer in writers() {
                let pieces = written(writer.clone(), &[&plain, &plain]);
                assert_eq!(written(writer, &[escaped, escaped]), pieces);
            }
            Ok::<(), Malformed>(())
        }).unwrap();
        prop_assert_eq!(count, 1);
    }
}
