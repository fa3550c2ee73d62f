//! A section of an answer: its text without the line breaks that only set it off from a mark.

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Section {
    /// A mark stood just before: line breaks that follow it are not text.
    is_fresh: bool,
    /// Line breaks that are text only if text follows.
    breaks: usize,
}

impl Section {
    pub(super) const fn after_mark() -> Self {
        Self {
            is_fresh: true,
            breaks: 0,
        }
    }

    pub(super) fn push(&mut self, text: &str, out: &mut String) {
        let text = if self.is_fresh {
            text.trim_start_matches('\n')
        } else {
            text
        };
        if text.is_empty() {
            return;
        }
        self.is_fresh = false;
        let body = text.trim_end_matches('\n');
        if !body.is_empty() {
            self.finish(out);
            out.push_str(body);
        }
        self.breaks += text.len() - body.len();
    }

    /// No mark follows: the line breaks are text.
    pub(super) fn finish(&mut self, out: &mut String) {
        out.extend(std::iter::repeat_n('\n', std::mem::take(&mut self.breaks)));
    }
}
