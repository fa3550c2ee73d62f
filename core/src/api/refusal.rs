//! Why a body was refused before anything else looked at it.

use core::fmt;

/// Of the answer's length: -1 leaves each of them open.
const BOUNDS: [&str; 3] = ["max_completion_tokens", "max_output_tokens", "max_tokens"];

/// The field at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Member of the body.
    pub field: &'static str,
    /// Position in `field`, where that is a list.
    pub item: Option<u32>,
    /// Member of the item; empty for the item itself.
    pub member: &'static str,
    /// Position in `member`, where that is a list.
    pub part: Option<u32>,
    /// Member within that; empty for the part itself.
    pub inner: &'static str,
}

impl Place {
    #[must_use]
    pub const fn field(field: &'static str) -> Self {
        Self {
            field,
            item: None,
            member: "",
            part: None,
            inner: "",
        }
    }

    #[must_use]
    pub(super) const fn item(self, item: u32) -> Self {
        Self {
            item: Some(item),
            ..self
        }
    }

    #[must_use]
    pub(super) const fn member(self, member: &'static str) -> Self {
        Self { member, ..self }
    }

    #[must_use]
    pub(super) const fn part(self, part: u32) -> Self {
        Self {
            part: Some(part),
            ..self
        }
    }

    #[must_use]
    pub(super) const fn inner(self, inner: &'static str) -> Self {
        Self { inner, ..self }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.field)?;
        if let Some(item) = self.item {
            write!(f, "[{item}]")?;
        }
        if !self.member.is_empty() {
            write!(f, ".{}", self.member)?;
        }
        if let Some(part) = self.part {
            write!(f, "[{part}]")?;
        }
        if !self.inner.is_empty() {
            write!(f, ".{}", self.inner)?;
        }
        Ok(())
    }
}

/// What is wrong with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Duplicate,
    Empty,
    /// Beside this other one.
    Excludes {
        other: &'static str,
    },
    /// A keyword of a schema that no answer can be held to.
    Keyword {
        keyword: &'static str,
    },
    /// More than one choice, where one alone is served.
    ManyChoices,
    Missing,
    /// Without what it takes.
    Needs {
        what: &'static str,
    },
    /// In a body of this API.
    NoPlace,
    NotAList,
    NotANumber,
    NotAnInteger,
    NotAnObject,
    NotAString,
    NotBoolean,
    NotText,
    /// Not a whole number of at least `least`.
    NotWhole {
        least: u32,
    },
    /// "0 and 2", say.
    OutOfRange {
        range: &'static str,
    },
    /// Something else than what the words say: "one of auto, none", say.
    Takes {
        what: &'static str,
    },
    TooLong {
        bytes_max: usize,
    },
    TooMany {
        count_max: usize,
    },
    UnknownRole,
    /// Refused by the published list.
    Unsupported {
        instead: &'static str,
    },
}

/// A body that is not a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A field that this API does not know is there twice.
    Duplicate,
    Field {
        place: Place,
        fault: Fault,
    },
    InvalidJson {
        line: usize,
        column: usize,
    },
    NotAnObject,
    NotUtf8 {
        at: usize,
    },
    TooDeep {
        at: usize,
        nesting_max: usize,
    },
    TooLarge {
        size_max: usize,
    },
    TooManyMembers {
        count_max: usize,
    },
}

impl Refusal {
    pub(super) const fn field(place: Place, fault: Fault) -> Self {
        Self::Field { place, fault }
    }

    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::TooLarge { .. } => 413,
            Self::Duplicate
            | Self::Field { .. }
            | Self::InvalidJson { .. }
            | Self::NotAnObject
            | Self::NotUtf8 { .. }
            | Self::TooDeep { .. }
            | Self::TooManyMembers { .. } => 400,
        }
    }

    /// The `code` of the error envelope.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "payload_too_large",
            Self::Duplicate
            | Self::Field { .. }
            | Self::InvalidJson { .. }
            | Self::NotAnObject
            | Self::NotUtf8 { .. }
            | Self::TooDeep { .. }
            | Self::TooManyMembers { .. } => "invalid_request_error",
        }
    }

    #[must_use]
    pub const fn place(self) -> Option<Place> {
        match self {
            Self::Field { place, .. } => Some(place),
            Self::Duplicate
            | Self::InvalidJson { .. }
            | Self::NotAnObject
            | Self::NotUtf8 { .. }
            | Self::TooDeep { .. }
            | Self::TooLarge { .. }
            | Self::TooManyMembers { .. } => None,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Duplicate => f.write_str("the body names a field twice"),
            Self::Field { place, fault } => match fault {
                Fault::Duplicate => write!(f, "{place} is given twice"),
                Fault::Empty => write!(f, "{place} must not be empty"),
                Fault::Excludes { other } => write!(f, "{place} and {other} exclude each other"),
                Fault::Keyword { keyword } => write!(
                    f,
                    "{place} uses `{keyword}`, which answers cannot be held to; leave it out"
                ),
                Fault::ManyChoices => write!(f, "{place} > 1 is not supported"),
                Fault::Missing => write!(f, "{place} is required"),
                Fault::Needs { what } => write!(f, "{place} needs {what}"),
                Fault::NoPlace => write!(f, "{place} has no place here"),
                Fault::NotAList => write!(f, "{place} must be an array"),
                Fault::NotANumber => write!(f, "{place} must be a number"),
                Fault::NotAnInteger => write!(f, "{place} must be an integer"),
                Fault::NotAnObject => write!(f, "{place} must be an object"),
                Fault::NotAString => write!(f, "{place} must be a string"),
                Fault::NotBoolean => write!(f, "{place} must be true or false"),
                Fault::NotText => write!(f, "{place} must be text; other media are not supported"),
                Fault::NotWhole { least } if BOUNDS.contains(&place.field) => {
                    write!(f, "{place} must be -1 or an integer of at least {least}")
                }
                Fault::NotWhole { least: 0 } => {
                    write!(f, "{place} must be a non-negative integer")
                }
                Fault::NotWhole { least } => {
                    write!(f, "{place} must be an integer of at least {least}")
                }
                Fault::OutOfRange { range } => write!(f, "{place} must be between {range}"),
                Fault::Takes { what } => write!(f, "{place} must be {what}"),
                Fault::TooLong { bytes_max } => {
                    write!(f, "{place} must have at most {bytes_max} bytes")
                }
                Fault::TooMany { count_max } => {
                    write!(f, "{place} must have at most {count_max} entries")
                }
                Fault::UnknownRole => write!(
                    f,
                    "{place} must be one of system, developer, user, assistant, tool, function"
                ),
                Fault::Unsupported { instead } => {
                    write!(f, "{place} is not supported: {instead}")
                }
            },
            Self::InvalidJson { line, column } => {
                write!(f, "invalid JSON at line {line} column {column}")
            }
            Self::NotAnObject => f.write_str("the body must be a JSON object"),
            Self::NotUtf8 { at } => write!(f, "the body is not UTF-8 at byte {at}"),
            Self::TooDeep { at, nesting_max } => {
                write!(
                    f,
                    "the body nests deeper than {nesting_max} levels at byte {at}"
                )
            }
            Self::TooLarge { size_max } => {
                write!(f, "the body is larger than {size_max} bytes")
            }
            Self::TooManyMembers { count_max } => {
                write!(f, "the body has more than {count_max} fields")
            }
        }
    }
}

impl core::error::Error for Refusal {}
