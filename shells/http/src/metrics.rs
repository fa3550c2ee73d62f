//! A page of metrics, in the format that whoever reads it asks for.

use std::fmt::Write as _;

use hyper::StatusCode;
use hyper::header::{ACCEPT, HeaderMap, HeaderValue, VARY};

use crate::reply::{Reply, bytes};

const OPEN_METRICS: &str = "application/openmetrics-text";
const OPEN_METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PLAIN_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
/// A weight without one written, in thousandths.
const WEIGHT_MAX: u16 = 1_000;

/// The page as it is, which is in OpenMetrics, where `headers` ask for that, and otherwise in the
/// older text format, which everything reads.
#[must_use]
pub fn metrics(headers: &HeaderMap, page: String) -> Reply {
    let mut reply = if wants_open_metrics(headers) {
        bytes(StatusCode::OK, OPEN_METRICS_TYPE, page)
    } else {
        bytes(StatusCode::OK, PLAIN_TYPE, plain(&page))
    };
    let headers = reply.headers_mut();
    headers.insert(VARY, HeaderValue::from_name(ACCEPT));
    reply
}

/// Whether OpenMetrics is named, and text that is plain not preferred to it.
fn wants_open_metrics(headers: &HeaderMap) -> bool {
    let mut open = 0;
    // By how closely a range names plain text, then by its weight.
    let mut plain = (0, 0);
    let values = headers.get_all(ACCEPT).into_iter();
    let values = values.filter_map(|value| value.to_str().ok());
    for range in values.flat_map(|value| value.split(',')) {
        let (name, weight) = weighed(range);
        match name.to_ascii_lowercase().as_str() {
            OPEN_METRICS => open = open.max(weight),
            "text/plain" => plain = plain.max((3, weight)),
            "text/*" => plain = plain.max((2, weight)),
            "*/*" => plain = plain.max((1, weight)),
            _ => {}
        }
    }
    open > 0 && open >= plain.1
}

/// A range of media types and its weight in thousandths; none where that cannot be read.
fn weighed(range: &str) -> (&str, u16) {
    let mut parts = range.split(';').map(str::trim);
    let name = parts.next().unwrap_or_default();
    let weight = parts.find_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q=")));
    (name, weight.map_or(WEIGHT_MAX, thousandths))
}

fn thousandths(text: &str) -> u16 {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let is_number = part.len() <= 3 && part.bytes().all(|it| it.is_ascii_digit());
    match whole {
        "0" if is_number => format!("{part:0<3}").parse().unwrap_or(0),
        "1" => WEIGHT_MAX,
        _ => 0,
    }
}

/// The text format 0.0.4 of the same figures. There the name of a counter is that of its samples,
/// units and the end are not told, and what is unknown is untyped.
fn plain(page: &str) -> String {
    let mut text = String::with_capacity(page.len());
    let mut help = None;
    for line in page.lines() {
        if line == "# EOF" || line.starts_with("# UNIT ") {
            continue;
        }
        if let Some(said) = line.strip_prefix("# HELP ") {
            help = said.split_once(' ');
        } else if let Some((name, kind)) = line
            .strip_prefix("# TYPE ")
            .and_then(|said| said.split_once(' '))
        {
            let (suffix, kind) = match kind {
                "counter" => ("_total", kind),
                "unknown" => ("", "untyped"),
                _ => ("", kind),
            };
            // Writing to a string cannot fail.
            if let Some((_, help)) = help.take_if(|(of, _)| *of == name) {
                let _ = writeln!(text, "# HELP {name}{suffix} {help}");
            }
            let _ = writeln!(text, "# TYPE {name}{suffix} {kind}");
        } else {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepting(values: &[&str]) -> HeaderMap {
        let values = values.iter().map(|value| value.parse().unwrap());
        values.map(|value| (ACCEPT, value)).collect()
    }

    #[test]
    fn whoever_does_not_ask_for_open_metrics_gets_plain_text() {
        let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
            application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (values, expected) in [
            (&[][..], false),
            (&["*/*"], false),
            (&["text/plain"], false),
            (&["application/*"], false),
            (&["text/html, application/xhtml+xml, */*;q=0.8"], false),
            (&["text/plain;version=0.0.4;q=0.5,*/*;q=0.1"], false),
            (&["application/openmetrics-text;q=0"], false),
            (&["application/openmetrics-text;q=nonsense"], false),
            (&["application/openmetrics-text;q=0.3, text/plain"], false),
            (&["application/openmetrics-text"], true),
            (
                &["Application/OpenMetrics-Text; version=1.0.0; q=0.75, */*;q=0.1"],
                true,
            ),
            (
                &[
                    "text/plain;q=0.2, */*",
                    "application/openmetrics-text;q=0.3",
                ],
                true,
            ),
            (&[prometheus], true),
        ] {
            assert_eq!(
                wants_open_metrics(&accepting(values)),
                expected,
                "{values:?}"
            );
        }
    }

    #[test]
    fn plain_text_names_a_counter_as_its_samples_are_named() {
        let page = "# HELP a_ms Times.\n# TYPE a_ms counter\n# UNIT a_ms ms\na_ms_total{x=\"1\"} 3\n\
            # HELP b Now.\n# TYPE b gauge\nb 4\n# TYPE c unknown\nc 5\n# EOF\n";
        let expected = "# HELP a_ms_total Times.\n# TYPE a_ms_total counter\na_ms_total{x=\"1\"} 3\n\
            # HELP b Now.\n# TYPE b gauge\nb 4\n# TYPE c untyped\nc 5\n";
        assert_eq!(plain(page), expected);
    }

    #[test]
    fn a_page_says_in_which_format_it_is_and_that_another_may_be_asked_for() {
        for (values, kind) in [(&[][..], PLAIN_TYPE), (&[OPEN_METRICS], OPEN_METRICS_TYPE)] {
            let reply = metrics(&accepting(values), "# EOF\n".to_owned());
            assert_eq!(reply.headers()["content-type"], kind);
            assert_eq!(reply.headers()["vary"], "accept");
        }
    }
}
