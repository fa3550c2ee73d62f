//! Tables for spreadsheets and notebooks, as comma-separated values.

use std::error::Error;
use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use cereus_sim::record::{COLUMNS, Row, SERIES_COLUMNS, Series};

/// A file that was made before the run, so that a wrong path costs no time.
pub(super) struct Table {
    path: PathBuf,
    writer: csv::Writer<BufWriter<File>>,
}

impl Table {
    pub(super) fn create(path: &Path) -> Result<Self, String> {
        let file = File::create(path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self {
            path: path.to_owned(),
            writer: csv::Writer::from_writer(BufWriter::new(file)),
        })
    }

    pub(super) fn rows(self, rows: &[Row]) -> Result<(), Box<dyn Error>> {
        self.write(&COLUMNS, rows.iter().map(Row::cells))
    }

    pub(super) fn series(self, series: &Series) -> Result<(), Box<dyn Error>> {
        self.write(&SERIES_COLUMNS, series.cells())
    }

    fn write<const N: usize>(
        mut self,
        heads: &[&str; N],
        rows: impl Iterator<Item = [String; N]>,
    ) -> Result<(), Box<dyn Error>> {
        let all = || {
            self.writer.write_record(heads)?;
            for row in rows {
                self.writer.write_record(&row)?;
            }
            self.writer.flush()?;
            Ok::<(), csv::Error>(())
        };
        all().map_err(|error| format!("{}: {error}", self.path.display()).into())
    }
}
