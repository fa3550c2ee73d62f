//! The trace that a command reads.

use std::error::Error;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::PathBuf;

use cereus_sim::workload::{Arrival, Workload};
use flate2::bufread::MultiGzDecoder;

#[derive(Debug, clap::Args)]
pub(super) struct Trace {
    /// A trace: Azure (.csv), BurstGPT (.csv) or Mooncake (.jsonl), as it is or compressed with gzip.
    #[arg(value_name = "TRACE")]
    pub(super) file: PathBuf,
}

impl Trace {
    /// All of it, for commands that run it more than once.
    pub(super) fn load(&self) -> Result<Vec<Arrival>, Box<dyn Error>> {
        let file = BufReader::with_capacity(1 << 16, File::open(&self.file)?);
        let arrivals: Result<Vec<Arrival>, _> = Workload::open(unpacked(file)?)?.collect();
        Ok(arrivals?)
    }
}

/// The trace, whether or not it is compressed with gzip.
pub(super) fn unpacked<'a>(mut file: impl BufRead + 'a) -> io::Result<Box<dyn BufRead + 'a>> {
    if file.fill_buf()?.starts_with(&[0x1f, 0x8b]) {
        let unpacked = BufReader::with_capacity(1 << 16, MultiGzDecoder::new(file));
        return Ok(Box::new(unpacked));
    }
    Ok(Box::new(file))
}
