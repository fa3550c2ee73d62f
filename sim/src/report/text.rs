//! The report as a table for people.

use core::fmt;

use super::{Percentiles, Report};

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let refused: u64 = self.refused.values().sum();
        let failed: u64 = self.failed.values().sum();
        writeln!(
            f,
            "simulated      {} on {} machines, seed {}",
            Seconds(self.simulated_us),
            self.machines,
            self.seed
        )?;
        let kinds = self.fleet.iter();
        let kinds: Vec<String> = kinds
            .map(|(kind, count)| format!("{count} {kind}"))
            .collect();
        writeln!(f, "fleet          {}", kinds.join(", "))?;
        writeln!(
            f,
            "requests       {} in = {} finished + {refused} refused + {failed} failed",
            self.asked, self.finished
        )?;
        for (code, count) in &self.refused {
            writeln!(f, "  refused      {count} {code}")?;
        }
        for (code, count) in &self.failed {
            writeln!(f, "  failed       {count} {code}")?;
        }
        if self.empty > 0 {
            writeln!(f, "  finished     {} without a word", self.empty)?;
        }
        for (alarm, count) in &self.alarms {
            writeln!(f, "  alarm        {count} {alarm}")?;
        }
        writeln!(
            f,
            "               {:>10} {:>10} {:>10} {:>10} {:>10} {:>10}",
            "mean", "p50", "p90", "p95", "p99", "max"
        )?;
        writeln!(f, "TTFT ms        {}", Row(self.ttft))?;
        writeln!(f, "TPOT ms        {}", Row(self.tpot))?;
        writeln!(f, "latency ms     {}", Row(self.latency))?;
        writeln!(f, "queued ms      {}", Row(self.queued))?;
        writeln!(
            f,
            "goodput        {} of requests, {} tokens/s (TTFT <= {}, TPOT <= {} ms)",
            Percent(self.goodput_ppm),
            Milli(self.good_tokens_per_s_milli),
            Seconds(self.slo_ttft_us),
            Milli(self.slo_tpot_us),
        )?;
        writeln!(
            f,
            "tokens         {} prompt, {} completion, {} attempts for {} answers",
            self.prompt_tokens, self.completion_tokens, self.attempts, self.finished
        )?;
        writeln!(
            f,
            "prefix cache   {} of {} prompt tokens were found",
            Percent(self.prefix_hit_ppm),
            self.begun_prompt_tokens
        )?;
        writeln!(
            f,
            "in use         {} of machines' time, {} of their rows, {} of their tokens",
            Percent(self.busy_ppm),
            Percent(self.rows_ppm),
            Percent(self.kv_tokens_ppm)
        )?;
        write!(f, "{}", self.living)?;
        let money = &self.money;
        writeln!(
            f,
            "money USD      {} deposited = {} consumers + {} providers + {} platform + {} held; sum {}",
            Usd(money.deposited),
            Usd(money.consumers),
            Usd(money.providers),
            Usd(money.platform),
            Usd(money.held),
            Usd(money.sum),
        )?;
        write!(f, "digest         {}", self.digest)
    }
}

impl Report {
    /// What the world did, for `--stats`.
    #[must_use]
    pub fn work_text(&self) -> String {
        let work = &self.work;
        format!(
            "events         {} and {} of machines' steps (heartbeats {}, wakes {}), core steps {}, effects {}\n\
             engine steps   {}; messages {} ({} resent); store writes {}; \
             cancels {}; refused by machines {}",
            work.events,
            work.step_events,
            work.reports,
            work.wakes,
            work.core_steps,
            work.effects,
            work.engine_steps,
            work.messages,
            work.resends,
            work.store_writes,
            work.cancels,
            work.machine_refusals,
        )
    }
}

struct Row(Percentiles);

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = self.0;
        let values = [
            row.mean_us,
            row.p50_us,
            row.p90_us,
            row.p95_us,
            row.p99_us,
            row.max_us,
        ];
        for (ix, value) in values.into_iter().enumerate() {
            let gap = if ix == 0 { "" } else { " " };
            write!(f, "{gap}{:>10}", Milli(value).to_string())?;
        }
        Ok(())
    }
}

/// Thousandths, with one digit after the point.
struct Milli(u64);

impl fmt::Display for Milli {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenths = (self.0 + 50) / 100;
        write!(f, "{}.{}", tenths / 10, tenths % 10)
    }
}

struct Seconds(u64);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} s", Milli(self.0 / 1_000))
    }
}

struct Percent(u64);

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hundredths = (self.0 + 50) / 100;
        write!(f, "{}.{:02} %", hundredths / 100, hundredths % 100)
    }
}

struct Usd(i64);

impl fmt::Display for Usd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let micros = self.0.unsigned_abs();
        write!(f, "{sign}{}.{:06}", micros / 1_000_000, micros % 1_000_000)
    }
}
