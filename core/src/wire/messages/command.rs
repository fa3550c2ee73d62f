//! Orders to a provider: cancel, load, prefetch, and which models it should have. There is no order to
//! unload: a model leaves memory when it is idle for long or another needs its room.

use serde::{Deserialize, Serialize};

use crate::wire::text::{Text, is_zero};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "cancel")]
pub struct Cancel<'a> {
    #[serde(borrow)]
    pub request_id: Text<'a>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "load_model")]
pub struct LoadModel<'a> {
    #[serde(borrow)]
    pub model_id: Text<'a>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "prefetch_model")]
pub struct PrefetchModel<'a> {
    #[serde(borrow)]
    pub model_id: Text<'a>,
    /// Higher is sooner; advisory.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub priority: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "desired_models")]
pub struct DesiredModels<'a> {
    /// `[]` revokes earlier targets; never `null`.
    #[serde(borrow)]
    pub models: Vec<DesiredModel<'a>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesiredModel<'a> {
    #[serde(borrow)]
    pub model_name: Text<'a>,
    #[serde(borrow)]
    pub desired_build: Text<'a>,
    #[serde(borrow, default, skip_serializing_if = "is_zero")]
    pub previous_build: Text<'a>,
}
