//! What the importers read and what they refuse.

use super::*;

fn read(text: &str) -> Result<Vec<Arrival>, WorkloadError> {
    Workload::open(text.as_bytes())?.collect()
}

fn arrival(after_us: u64, prompt_tokens: u32, output_tokens: u32) -> Arrival {
    Arrival {
        after: Span(after_us),
        prompt_tokens,
        output_tokens,
        blocks: Vec::new(),
    }
}

#[test]
fn azure_rows_are_read_without_a_final_newline() {
    let text = "TIMESTAMP,ContextTokens,GeneratedTokens\n\
                2023-11-16 23:59:59.6805900,374,44\r\n\
                2023-11-17 00:00:00.6805919,396,109";
    let rows = read(text).unwrap();
    assert_eq!(rows, [arrival(0, 374, 44), arrival(1_000_001, 396, 109)]);
}

#[test]
fn a_leap_day_lies_between_february_and_march() {
    let text = "TIMESTAMP,ContextTokens,GeneratedTokens\n\
                2024-02-28 00:00:00,1,1\n2024-03-01 00:00:00,1,1";
    assert_eq!(read(text).unwrap()[1].after, Span::secs(2 * 86_400));
}

#[test]
fn burst_gpt_columns_are_found_by_name() {
    let text = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n\
                5,ChatGPT,472,18,490,Conversation log\n\
                45.5,ChatGPT,1087,230,1317,Conversation log\n";
    let rows = read(text).unwrap();
    assert_eq!(rows, [arrival(0, 472, 18), arrival(40_500_000, 1_087, 230)]);
}

#[test]
fn mooncake_rows_are_json_lines() {
    let text = "{\"timestamp\": 0, \"input_length\": 6758, \"output_length\": 500, \"hash_ids\": [0, 9]}\n\
                {\"timestamp\": 27, \"input_length\": 2, \"output_length\": 3}\n";
    let rows = read(text).unwrap();
    let first = Arrival {
        blocks: vec![0, 9],
        ..arrival(0, 6_758, 500)
    };
    assert_eq!(rows, [first, arrival(27_000, 2, 3)]);
}

#[test]
fn bad_rows_are_told_with_their_line() {
    let azure = |row: &str| {
        format!("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46,1,1\n{row}\n")
    };
    let cases = [
        (
            azure("16.11.2023 18:15:47,1,1"),
            3,
            Trouble::Field("TIMESTAMP"),
        ),
        (
            azure("2023-13-16 18:15:47,1,1"),
            3,
            Trouble::Field("TIMESTAMP"),
        ),
        (
            azure("2023-11-16 18:15:47,-1,1"),
            3,
            Trouble::Field("ContextTokens"),
        ),
        (
            azure("2023-11-16 18:15:47,1,99999999999"),
            3,
            Trouble::TooLarge("GeneratedTokens"),
        ),
        (
            azure("2023-11-16 18:15:47,1"),
            3,
            Trouble::ColumnMissing("GeneratedTokens"),
        ),
        (azure("2023-11-16 18:15:45,1,1"), 3, Trouble::OutOfOrder),
        (String::new(), 1, Trouble::Empty),
        (
            "TIMESTAMP,ContextTokens\n".into(),
            1,
            Trouble::ColumnMissing("GeneratedTokens"),
        ),
        ("a,b,c\n".into(), 1, Trouble::UnknownFormat),
        (
            "TIMESTAMP,ContextTokens,GeneratedTokens\n".into(),
            2,
            Trouble::Empty,
        ),
    ];
    for (text, line, trouble) in cases {
        let error = read(&text).unwrap_err();
        assert_eq!(error, WorkloadError { line, trouble });
        assert!(error.to_string().starts_with(&format!("line {line}: ")));
    }
    let error = read("{\"timestamp\": 0}\n").unwrap_err();
    assert!(matches!(error.trouble, Trouble::Json(_)));
    let more =
        "{\"timestamp\": 0, \"input_length\": 512, \"output_length\": 1, \"hash_ids\": [1, 2]}\n";
    assert_eq!(read(more).unwrap_err().trouble, Trouble::Field("hash_ids"));
}

#[test]
fn what_spreadsheets_write_is_read() {
    let text = "\u{feff}\"TIMESTAMP\",Note,ContextTokens, GeneratedTokens\n\
                2024-05-10 01:00:00.5+01:00,\"a, b\",\"374\", 44\n\n\
                2024-05-10T00:00:01Z,,396,109\n\
                2024-05-10 00:00:02,,x,1\n";
    let rows: Vec<_> = Workload::open(text.as_bytes()).unwrap().collect();
    assert_eq!(rows[0], Ok(arrival(0, 374, 44)));
    assert_eq!(rows[1], Ok(arrival(500_000, 396, 109)));
    let error = rows[2].as_ref().unwrap_err();
    assert_eq!(error.line, 5, "{error}");
    assert_eq!(error.trouble, Trouble::Field("ContextTokens"));
}

#[test]
fn a_line_without_an_end_is_refused_before_it_fills_the_memory() {
    for begin in [
        "{",
        "TIMESTAMP",
        "TIMESTAMP,ContextTokens,GeneratedTokens\n",
    ] {
        let text = format!("{begin}{}", " ".repeat(2 << 20));
        assert_eq!(read(&text).unwrap_err().trouble, Trouble::LineTooLong);
    }
    assert_eq!(
        Workload::open(&b"\xff,b\n"[..]).unwrap_err().trouble,
        Trouble::NotUtf8
    );
}

#[test]
fn a_speedup_shortens_the_gaps() {
    assert_eq!(sped_up(Tick(5), Span(1_000), 2_000_000), Tick(505));
    assert_eq!(sped_up(Tick(5), Span(1_000), 500_000), Tick(2_005));
}

#[test]
fn a_byte_order_mark_and_offsets_from_utc_are_read() {
    let text = "\u{feff}TIMESTAMP,ContextTokens,GeneratedTokens\n\
                2023-11-16 18:15:46+01:00,1,0\n2023-11-16T17:15:47Z,2,1\n";
    let rows = read(text).unwrap();
    assert_eq!(rows, [arrival(0, 1, 0), arrival(1_000_000, 2, 1)]);
    let text = "\u{feff}{\"timestamp\": 0, \"input_length\": 2, \"output_length\": 3}\n";
    assert_eq!(read(text).unwrap(), [arrival(0, 2, 3)]);
}
