//! Whether a model's chat template renders, as the engine finds it.

use std::path::Path;

/// What is known of a model's chat template: a provider says so when it registers,
/// and a coordinator sends it no request for a model whose template fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rendering {
    /// Where it fails.
    Fails(String),
    Renders,
    /// There is none, or this build cannot render.
    Unchecked,
}

impl Rendering {
    /// As the wire says it: absent where nobody looked.
    #[must_use]
    pub const fn is_ok(&self) -> Option<bool> {
        match self {
            Self::Fails(_) => Some(false),
            Self::Renders => Some(true),
            Self::Unchecked => None,
        }
    }

    /// Why the model is fenced, if it is.
    #[must_use]
    pub fn fault(&self) -> Option<&str> {
        match self {
            Self::Fails(why) => Some(why),
            Self::Renders | Self::Unchecked => None,
        }
    }
}

#[cfg(feature = "mlx")]
pub(super) fn rendering(folder: &Path) -> Rendering {
    use cereus_engine::language::{TemplateCheck, check_template};

    match check_template(folder) {
        TemplateCheck::Absent => Rendering::Unchecked,
        TemplateCheck::Damaged(why) | TemplateCheck::Fails(why) => Rendering::Fails(why),
        TemplateCheck::Renders => Rendering::Renders,
    }
}

#[cfg(not(feature = "mlx"))]
pub(super) fn rendering(_folder: &Path) -> Rendering {
    Rendering::Unchecked
}
