//! What the fuzz targets share.
#![forbid(unsafe_code)]

pub mod answer;
pub mod nested;
pub mod ops;
