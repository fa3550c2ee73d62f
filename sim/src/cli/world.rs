//! Options of `cereus-sim run` that say how the world lives. All of them are off where they are not
//! given.

use cereus_core::time::Span;
use cereus_sim::stream::Ratio;
use cereus_sim::world::churn::Churn;
use cereus_sim::world::config::{DISK_MBS, Newcomer, RunConfig, Telling, parse_newcomer};
use cereus_sim::world::defects::{Defect, Defects, parse_boasters, parse_degrade};
use cereus_sim::world::heat::Heat;
use cereus_sim::world::people::{People, Tenants};
use clap::ValueEnum;

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Warm {
    /// Load warms no machine.
    None,
    /// Laptops slow down by a fifth under sustained load, machines with little cooling by a third.
    Home,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "How machines and consumers live")]
pub(super) struct Life {
    /// Whether machines sleep, wake and leave: `none`, `home` for Macs of people at home (about 18
    /// sessions a week each, half of them away at any time), or `home:N` for all of it N times as fast.
    #[arg(long, default_value = "none")]
    churn: Churn,
    /// A machine that nobody knows, which comes so many seconds after the first request, as in
    /// m4-max/128@600. May be given again.
    #[arg(long, value_name = "CHIP/GB@S", value_parser = parse_newcomer)]
    newcomer: Vec<Newcomer>,
    /// Whether machines get hot under sustained load and slow down.
    #[arg(long, value_enum, default_value_t = Warm::None)]
    heat: Warm,
    /// Machines whose speed drops for good: how many, to what percentage and after how many seconds, as
    /// in 3:25@600. May be given again.
    #[arg(long, value_name = "N:PERCENT@S", value_parser = parse_degrade)]
    degrade: Vec<Defects>,
    /// So many machines refuse every request, and report that they are idle.
    #[arg(long, default_value_t = 0, value_name = "N")]
    refusers: u32,
    /// Machines that claim more or less than their speed: how many, and what percentage, as in 5:300.
    /// May be given again.
    #[arg(long, value_name = "N:PERCENT", value_parser = parse_boasters)]
    boasters: Vec<Defects>,
    /// How fast weights come from a disk, in millions of bytes a second, where there are several models.
    #[arg(long, default_value_t = DISK_MBS, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    disk_mbs: u32,
    /// Machines that the coordinator keeps each model in memory on, where there are several.
    #[arg(long, default_value_t = 0, value_name = "N")]
    warm_min: u16,
    /// How much each account asks: all alike, or by Zipf, each with a scope of its own in prefix caches.
    #[arg(long, value_enum, default_value_t = Demand::Alike)]
    tenants: Demand,
    /// Sessions that ask in turn: each sends the next row of the trace when it has thought about its last
    /// answer, whatever time that row names. Nought: requests come when the trace says.
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    sessions: u32,
    /// How long a session thinks between an answer and its next request, on average.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    think_s: u64,
    /// How often a consumer tries again what was turned down with 429 or 5xx.
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=32))]
    retries: u8,
    /// The longest Retry-After that a consumer waits for; instead of a longer one it backs off by
    /// itself, from half a second to eight.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    retry_after_s: u64,
    /// How long consumers wait for first content before they leave, on average. Nought: for ever.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    patience_s: u64,
    /// Of so many answers in a hundred the consumer leaves amid, some seconds after the first word.
    #[arg(long, default_value_t = 0, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(0..=100))]
    hang_up: u32,
    /// Print what machines of each kind got to do.
    #[arg(long)]
    shares: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Demand {
    Alike,
    Zipf,
}

impl Life {
    pub(super) fn shape(&self, config: &mut RunConfig) {
        config.churn = self.churn;
        config.newcomers.clone_from(&self.newcomer);
        config.people = People {
            tenants: match self.tenants {
                Demand::Alike => Tenants::Alike,
                Demand::Zipf => Tenants::Zipf,
            },
            sessions: self.sessions,
            think_mean: Span::secs(self.think_s),
            retries_max: self.retries,
            retry_after_max: Span::secs(self.retry_after_s),
            patience_mean: Span::secs(self.patience_s),
            hang_up: Ratio::new(self.hang_up, 100),
        };
        config.shares = match self.shares {
            true => Telling::Told,
            false => Telling::Left,
        };
        config.disk_mbs = self.disk_mbs;
        config.warm_min = self.warm_min;
        config.heat = match self.heat {
            Warm::None => Heat::None,
            Warm::Home => Heat::Home,
        };
        let refusers = Defects {
            count: self.refusers,
            defect: Defect::Refuses,
        };
        let refusers = (refusers.count > 0).then_some(refusers);
        let defects = self.degrade.iter().chain(&refusers).chain(&self.boasters);
        config.defects = defects.copied().collect();
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        life: Life,
    }

    fn shaped(words: &[&str]) -> Result<RunConfig, String> {
        let words = ["run"].into_iter().chain(words.iter().copied());
        let line = Line::try_parse_from(words).map_err(|error| error.to_string())?;
        let mut config = RunConfig::reference(10);
        line.life.shape(&mut config);
        Ok(config)
    }

    #[test]
    fn without_options_the_world_is_as_it_is_by_default() {
        assert_eq!(shaped(&[]), Ok(RunConfig::reference(10)));
    }

    #[test]
    fn options_shape_the_world() {
        let words = "--churn home:4 --newcomer m4-max/128@600 --heat home --degrade 3:25@60 \
                     --refusers 2 --boasters 1:300 --sessions 5 --think-s 7 --retries 2 --hang-up 5";
        let words: Vec<&str> = words.split_whitespace().collect();
        let config = shaped(&words).unwrap();
        assert_eq!(config.churn, Churn::Home { hurry: 4 });
        assert_eq!((config.machines_in_all(), config.heat), (11, Heat::Home));
        let counts = config.defects.iter().map(|defects| defects.count);
        assert_eq!(counts.collect::<Vec<_>>(), [3, 2, 1]);
        let people = config.people;
        assert_eq!((people.sessions, people.retries_max), (5, 2));
        assert_eq!(people.think_mean, Span::secs(7));
        assert_eq!(people.hang_up, Ratio::new(5, 100));
        assert_eq!(config.check(), Ok(()));
    }

    #[test]
    fn a_wrong_option_is_answered_with_a_right_one() {
        for (words, part) in [
            (["--churn", "away"], "home:N"),
            (["--newcomer", "m4-max/128"], "m4-max/128@600"),
            (["--degrade", "3:25"], "3:25@600"),
            (["--boasters", "5"], "5:300"),
            (["--hang-up", "101"], "0..=100"),
        ] {
            let said = shaped(&words).unwrap_err();
            assert!(said.contains(part), "{words:?}: {said}");
        }
    }
}
