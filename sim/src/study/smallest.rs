//! The smallest fleet that is good enough.

/// What a search found, and what was tried on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Smallest {
    /// None where the largest fleet that may be tried is not good enough.
    pub machines: Option<u32>,
    /// Whether each size that was tried is good enough, by size.
    pub tried: Vec<(u32, bool)>,
}

impl Smallest {
    /// Sizes above the found one that are not good enough all the same: more machines of a mix can be
    /// a slower fleet where the rounding of the mix turns.
    pub fn bad_above(&self) -> impl Iterator<Item = u32> {
        let found = self.machines.unwrap_or(u32::MAX);
        let bad = self
            .tried
            .iter()
            .filter(move |(size, is_good)| *size > found && !is_good);
        bad.map(|(size, _)| *size)
    }
}

/// Neighbours of the found size that are tried on either side.
const NEIGHBOURS: u32 = 2;

/// Halves or doubles `start` until the answer lies between two sizes, halves what lies between, and then
/// tries the neighbours: if a smaller one is good enough after all, that is the answer.
///
/// # Errors
/// What `is_good` says.
pub fn smallest<E>(
    start: u32,
    most: u32,
    mut is_good: impl FnMut(u32) -> Result<bool, E>,
) -> Result<Smallest, E> {
    let mut tried = std::collections::BTreeMap::new();
    let mut is_good = |size: u32| match tried.get(&size) {
        Some(&known) => Ok::<bool, E>(known),
        None => {
            let found = is_good(size)?;
            tried.insert(size, found);
            Ok(found)
        }
    };
    let mut high = start.clamp(1, most.max(1));
    // Not good enough, or no fleet at all.
    let mut low = 0;
    while !is_good(high)? {
        if high == most {
            let tried = tried.into_iter().collect();
            return Ok(Smallest {
                machines: None,
                tried,
            });
        }
        low = high;
        high = high.saturating_mul(2).min(most);
    }
    if low == 0 {
        low = high / 2;
        while low > 0 && is_good(low)? {
            (high, low) = (low, low / 2);
        }
    }
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if is_good(middle)? {
            high = middle;
        } else {
            low = middle;
        }
    }
    let around = high.saturating_sub(NEIGHBOURS).max(1)..=high.saturating_add(NEIGHBOURS).min(most);
    for size in around.rev() {
        if is_good(size)? {
            high = high.min(size);
        }
    }
    let tried = tried.into_iter().collect();
    Ok(Smallest {
        machines: Some(high),
        tried,
    })
}

#[cfg(test)]
mod tests {
    use core::convert::Infallible;

    use super::*;

    fn find(start: u32, is_good: impl Fn(u32) -> bool) -> Smallest {
        smallest(start, 1_000, |size| Ok::<_, Infallible>(is_good(size))).unwrap()
    }

    #[test]
    fn the_smallest_fleet_is_found_from_anywhere() {
        for start in [1, 37, 640, 5_000] {
            for knee in [1, 2, 36, 37, 38, 999, 1_000] {
                let found = find(start, |size| size >= knee);
                assert_eq!(found.machines, Some(knee), "from {start}");
                assert!(found.tried.len() <= 25, "{:?}", found.tried);
                assert_eq!(found.bad_above().count(), 0);
            }
        }
        assert_eq!(find(10, |_| false).machines, None);
    }

    #[test]
    fn a_neighbour_that_does_not_fit_is_told() {
        let found = find(10, |size| size >= 40 && size != 41);
        assert_eq!(found.machines, Some(40));
        assert_eq!(found.bad_above().collect::<Vec<_>>(), [41]);
        let found = find(10, |size| size >= 40 || size == 38);
        assert_eq!(found.machines, Some(38), "{:?}", found.tried);
    }
}
