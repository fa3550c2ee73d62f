//! `continue_final_message`: where a prompt must be cut so that the model goes on with the last
//! message in place of beginning another.

use crate::failure::Failure;

/// Just behind the last message's text in what the template made of it: what the template writes
/// after a turn is left out. Templates may take blanks away at a text's ends.
///
/// # Errors
/// The template does not show the text as it is.
pub(super) fn end_within(rendered: &str, last: &str) -> Result<usize, Failure> {
    let ends = [last, last.trim()].map(|text| Some(rendered.rfind(text)? + text.len()));
    ends.into_iter().flatten().next().ok_or_else(|| {
        let text = "continue_final_message: the model's chat template does not show the last message \
                    as it is";
        Failure::field("continue_final_message", text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_place_counts_and_blanks_that_are_gone_do_not() {
        assert_eq!(end_within("a b<e>a b<e>", "a b").unwrap(), 9);
        assert_eq!(end_within("a b<e>", " a b \n").unwrap(), 3);
        assert_eq!(end_within("a b <e>", "a b ").unwrap(), 4);
        assert!(end_within("else", "a b").is_err());
    }
}
