//! Machines that are not what they seem: they lose speed, refuse everything, or claim what they have
//! not.

use cereus_core::time::Span;

/// What is wrong with a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Defect {
    /// It says of its speed so many percent of what is true.
    Boasts { percent: u32 },
    /// So long after the first request its speed drops to so many percent, for good.
    Degrades { percent: u32, after: Span },
    /// It refuses every request for want of room, and reports that it is idle.
    Refuses,
}

/// So many machines have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Defects {
    pub count: u32,
    pub defect: Defect,
}

impl Defects {
    /// What is wrong with each machine, from the first on; which these are the seed decides, since
    /// it orders the mix.
    #[must_use]
    pub fn assigned(all: &[Self], machines: u32) -> Vec<Option<Defect>> {
        let each = all
            .iter()
            .flat_map(|one| core::iter::repeat_n(Some(one.defect), one.count as usize));
        each.chain(core::iter::repeat(None))
            .take(machines as usize)
            .collect()
    }
}

/// Boasters as `5:300`: how many, and what they say in percent of the truth.
pub fn parse_boasters(text: &str) -> Result<Defects, String> {
    const FORM: &str = "write how many and the percentage that they claim, as in 5:300";
    let (count, percent) = text.split_once(':').ok_or(FORM)?;
    let percent = number(percent, 1, 10_000)?;
    Ok(Defects {
        count: number(count, 0, u32::MAX)?,
        defect: Defect::Boasts { percent },
    })
}

/// Machines that degrade as `3:25@600`: how many, to what percentage, and after how many seconds.
pub fn parse_degrade(text: &str) -> Result<Defects, String> {
    const FORM: &str = "write how many, to what percentage and when, as in 3:25@600";
    let (count, rest) = text.split_once(':').ok_or(FORM)?;
    let (percent, after_s) = rest.split_once('@').ok_or(FORM)?;
    let percent = number(percent, 1, 100)?;
    let after = Span::secs(number(after_s, 0, u32::MAX)?.into());
    Ok(Defects {
        count: number(count, 0, u32::MAX)?,
        defect: Defect::Degrades { percent, after },
    })
}

fn number(text: &str, least: u32, most: u32) -> Result<u32, String> {
    let parsed = text.parse().ok();
    let parsed = parsed.filter(|number| (least..=most).contains(number));
    parsed.ok_or_else(|| format!("`{text}` is no number from {least} to {most}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defects_are_given_to_machines_one_after_the_other() {
        let slow = parse_degrade("2:25@600").unwrap();
        let loud = parse_boasters("1:300").unwrap();
        let given = Defects::assigned(&[slow, loud], 5);
        assert_eq!(given[..2], [Some(slow.defect); 2]);
        assert_eq!(
            given[2..],
            [Some(Defect::Boasts { percent: 300 }), None, None]
        );
        assert_eq!(Defects::assigned(&[slow], 1).len(), 1);
    }

    #[test]
    fn defects_that_make_no_sense_are_refused() {
        for wrong in ["", "3", "3:25", "3:0@5", "3:101@5", "x:25@5", "3:25@-1"] {
            assert!(parse_degrade(wrong).is_err(), "{wrong}");
        }
        assert!(parse_boasters("5").is_err() && parse_boasters("5:0").is_err());
    }
}
