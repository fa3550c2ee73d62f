use super::*;

fn written(writer: &mut Writer, tokens: Vec<TokenLogprobs<'_>>) -> Value {
    let piece = Piece {
        logprobs: Logprobs::Plain(tokens),
        ..Piece::content("x")
    };
    chunk(writer, &piece)["choices"][0]["logprobs"].take()
}

#[test]
fn tokens_that_print_alike_have_an_entry_each_and_the_sampled_one_is_among_them() {
    let tokens = vec![TokenLogprobs {
        chosen: token(b"\xe7", -4_000_000),
        top: vec![
            token(b"\xe4", -700_000),
            token(b"\xe5", -1_204_000),
            token(b"a", -1_609_000),
            token(b"a", -1_700_000),
        ],
    }];
    let lists = written(&mut direct(Api::Completions), tokens);
    assert_eq!(
        lists["top_logprobs"][0],
        json!({"bytes:\\xe4": -0.7, "bytes:\\xe5": -1.204, "a": -1.609, "a #2": -1.7,
            "bytes:\\xe7": -4.0})
    );
    assert_eq!(lists["tokens"], json!(["bytes:\\xe7"]));
    assert_eq!(lists["token_logprobs"], json!([-4.0]));
}

#[test]
fn offsets_count_characters_over_all_pieces() {
    let one = |bytes| TokenLogprobs {
        chosen: token(bytes, 0),
        top: vec![],
    };
    let mut writer = direct(Api::Completions).of_answers(vec!["é:".to_owned()]);
    writer.write_open(&mut vec![]);
    let first = written(&mut writer, vec![one(b"ab"), one(b"\xe2\x82")]);
    assert_eq!(first["text_offset"], json!([2, 4]));
    let second = written(&mut writer, vec![one(b"\xac"), one(b"c")]);
    assert_eq!(second["text_offset"], json!([4, 5]));
}

#[test]
fn a_whole_answer_has_its_choices_in_their_order_behind_their_heads() {
    let writer = direct(Api::Completions).of_answers(vec![String::new(), "\"é:".to_owned()]);
    let mut out = vec![];
    let answers = ["a", "b"].map(|text| {
        let mut answer = WholeAnswer::direct();
        answer.push(&Piece::content(text)).unwrap();
        answer
    });
    let answers = answers.each_ref().map(|it| (it, FinishReason::Length));
    writer.write_whole(&answers, AnswerUsage::default(), &mut out);
    let whole: Value = serde_json::from_slice(&out).expect("it is JSON");
    assert_eq!(whole["object"], "text_completion");
    assert_eq!(
        whole["choices"][1],
        json!({"index": 1, "text": "\"é:b", "logprobs": null, "finish_reason": "length"})
    );
    assert_eq!(whole["usage"]["total_tokens"], 0);
}

#[test]
fn a_whole_answer_keeps_the_log_probabilities_of_its_pieces() {
    let one = |bytes| TokenLogprobs {
        chosen: token(bytes, -1_500_001),
        top: vec![token(b"\xff", 0)],
    };
    let mut answer = WholeAnswer::direct();
    let mut streamed = vec![];
    let mut writer = direct(Api::Completions);
    for bytes in [b"\xe2\x82".as_slice(), b"\xacb"] {
        let piece = Piece {
            logprobs: Logprobs::Plain(vec![one(bytes)]),
            ..Piece::content("x")
        };
        answer.push(&piece).unwrap();
        streamed.push(chunk(&mut writer, &piece));
    }
    let mut out = vec![];
    let finish = FinishReason::Stop;
    writer.write_whole(&[(&answer, finish)], AnswerUsage::default(), &mut out);
    let whole: Value = serde_json::from_slice(&out).unwrap();
    for list in ["tokens", "token_logprobs", "top_logprobs", "text_offset"] {
        let of = |event: &Value| event["choices"][0]["logprobs"][list].clone();
        let pieces: Vec<Value> = streamed.iter().map(|event| of(event)[0].clone()).collect();
        assert_eq!(of(&whole), Value::from(pieces), "{list}");
    }
}
