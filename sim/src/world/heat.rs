//! Machines that get hot under sustained load and slow down.
//!
//! [`Heat::Home`] is an assumption in the manner of public tests of sustained load: no fan or a small
//! one loses about a third, a laptop with fans about a fifth, a desktop nothing. Heat approaches its end with a
//! time constant of four minutes, under load and at rest; from half of it on a machine is fair, from
//! four fifths on serious, so about 2.8 and 6.4 minutes after it began to work. Chips without a suffix
//! stand for the first, Pro and Max for the second, Ultra for the third. Whether a machine works is
//! seen at each heartbeat, which also tells its state.

use cereus_core::event::Thermal;
use cereus_core::time::Span;

use crate::hardware::Place;

/// Whether machines get hot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Heat {
    None,
    Home,
}

/// How a case gets rid of its heat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cooling {
    Desktop,
    Laptop,
    Little,
}

const FULL_PPM: u64 = 1_000_000;
const FAIR_PPM: u64 = 500_000;
const SERIOUS_PPM: u64 = 800_000;
/// Heat moves towards its end, by the share of this that has passed of what is missing.
const TIME_CONSTANT: Span = Span::secs(240);

/// How hot one machine is.
#[derive(Clone, Copy, Debug)]
pub struct Warmth {
    cooling: Cooling,
    heat_ppm: u64,
}

impl Warmth {
    #[must_use]
    pub fn of(place: &Place) -> Self {
        let cooling = match place.chip.split_once('-').map(|(_, suffix)| suffix) {
            Some("ultra") => Cooling::Desktop,
            Some(_) => Cooling::Laptop,
            None => Cooling::Little,
        };
        Self {
            cooling,
            heat_ppm: 0,
        }
    }

    /// So much time passed, in which the machine worked or rested.
    pub fn pass(&mut self, span: Span, work: Work) {
        let end_ppm = match (work, self.cooling) {
            (Work::Some, Cooling::Laptop | Cooling::Little) => FULL_PPM,
            (Work::Some, Cooling::Desktop) | (Work::None, _) => 0,
        };
        let share = |missing: u64| missing * span.0.min(TIME_CONSTANT.0) / TIME_CONSTANT.0;
        self.heat_ppm = match end_ppm.checked_sub(self.heat_ppm) {
            Some(missing) => self.heat_ppm + share(missing),
            None => self.heat_ppm - share(self.heat_ppm - end_ppm),
        };
    }

    #[must_use]
    pub const fn thermal(&self) -> Thermal {
        match self.heat_ppm {
            ..FAIR_PPM => Thermal::Nominal,
            FAIR_PPM..SERIOUS_PPM => Thermal::Fair,
            SERIOUS_PPM.. => Thermal::Serious,
        }
    }

    /// Millionths of its best speed.
    #[must_use]
    pub const fn speed_ppm(&self) -> u32 {
        match (self.cooling, self.thermal()) {
            (Cooling::Desktop, _) | (_, Thermal::Nominal) => 1_000_000,
            (Cooling::Laptop, Thermal::Fair) => 920_000,
            (Cooling::Laptop, Thermal::Serious | Thermal::Critical) => 800_000,
            (Cooling::Little, Thermal::Fair) => 850_000,
            (Cooling::Little, Thermal::Serious | Thermal::Critical) => 650_000,
        }
    }
}

/// What a machine did in a time that passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    None,
    Some,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Its states after each minute of work, and then of rest.
    fn states(place: &str) -> (Vec<Thermal>, Vec<u32>) {
        let mut warmth = Warmth::of(&place.parse().unwrap());
        let minutes = (0..20).map(|minute| match minute {
            ..10 => Work::Some,
            10.. => Work::None,
        });
        let look = |work| {
            (0..12).for_each(|_| warmth.pass(Span::secs(5), work));
            (warmth.thermal(), warmth.speed_ppm())
        };
        minutes.map(look).unzip()
    }

    #[test]
    fn a_machine_that_works_gets_hot_and_slow_and_recovers_at_rest() {
        use Thermal::{Fair, Nominal, Serious};
        let (states, speeds) = states("m4/24");
        assert_eq!(states[..4], [Nominal, Nominal, Fair, Fair]);
        assert_eq!(states[9..14], [Serious, Fair, Fair, Nominal, Nominal]);
        assert_eq!(
            (speeds[0], speeds[3], speeds[9]),
            (1_000_000, 850_000, 650_000)
        );
    }

    #[test]
    fn the_case_decides_how_much_is_lost() {
        assert_eq!(states("m3-max/64").1[9], 800_000);
        assert!(states("m2-ultra/192").1.iter().all(|ppm| *ppm == 1_000_000));
    }
}
