//! How fast requests may come until too few of them are served well.

/// So much of what a fleet serves within the objective when it has next to nothing to do must still be, in
/// a million: long prompts are late on slow chips at any load.
pub const GOODPUT_KEPT_PPM: u64 = 950_000;
/// Next to nothing: fifty times slower than recorded.
const UNLOADED_PPM: u64 = 20_000;
/// A fleet that serves less than this well when it has nothing to do is not what was meant.
const GOODPUT_UNLOADED_MIN_PPM: u64 = 200_000;
/// The found speed-up is within this of the true one, in a million of it.
const PRECISION_PPM: u64 = 20_000;
/// Speed-ups beyond are not tried.
const SPEEDUP_PPM: (u64, u64) = (UNLOADED_PPM, 1_000_000_000);

/// What a search found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capacity {
    /// The largest speed-up of the arrivals that was seen to be served well, in millionths.
    Found { speedup_ppm: u64 },
    /// Even with next to nothing to do it serves only so much well.
    Never { goodput_ppm: u64 },
    /// Arrivals that come a thousand times as fast still are.
    Beyond,
}

/// Looks for the largest speed-up with enough goodput: doubles or halves `start_ppm` until the answer
/// lies between two, then halves what lies between. `goodput` runs a world at a speed-up.
///
/// # Errors
/// What `goodput` says.
pub fn capacity<E>(
    start_ppm: u64,
    mut goodput: impl FnMut(u64) -> Result<u64, E>,
) -> Result<Capacity, E> {
    let (least, most) = SPEEDUP_PPM;
    let unloaded_ppm = goodput(UNLOADED_PPM)?;
    if unloaded_ppm < GOODPUT_UNLOADED_MIN_PPM {
        return Ok(Capacity::Never {
            goodput_ppm: unloaded_ppm,
        });
    }
    let enough_ppm = unloaded_ppm * GOODPUT_KEPT_PPM / 1_000_000;
    let mut low = start_ppm.clamp(least, most);
    let mut high = low;
    if goodput(low)? >= enough_ppm {
        loop {
            if high == most {
                return Ok(Capacity::Beyond);
            }
            high = (high * 2).min(most);
            if goodput(high)? < enough_ppm {
                break;
            }
            low = high;
        }
    } else {
        low = (low / 2).max(least);
        // It ends at the least, where it is as good as unloaded.
        while low > least && goodput(low)? < enough_ppm {
            high = low;
            low = (low / 2).max(least);
        }
    }
    while high - low > low / (1_000_000 / PRECISION_PPM) {
        let middle = low + (high - low) / 2;
        if goodput(middle)? >= enough_ppm {
            low = middle;
        } else {
            high = middle;
        }
    }
    Ok(Capacity::Found { speedup_ppm: low })
}

#[cfg(test)]
mod tests {
    use core::convert::Infallible;

    use super::*;

    fn of(start_ppm: u64, knee_ppm: u64) -> (Capacity, u32) {
        let mut runs = 0;
        let goodput = |ppm| {
            runs += 1;
            Ok::<_, Infallible>(if ppm <= knee_ppm { 860_000 } else { 190_000 })
        };
        let found = capacity(start_ppm, goodput).unwrap();
        (found, runs)
    }

    #[test]
    fn the_knee_is_found_from_either_side_to_within_two_percent() {
        for start in [20_000, 1_000_000, 70_000_000] {
            for knee in [50_000, 999_999, 3_141_592] {
                let (found, runs) = of(start, knee);
                let Capacity::Found { speedup_ppm } = found else {
                    panic!("{found:?}");
                };
                assert!(speedup_ppm <= knee && knee - speedup_ppm <= knee / 49);
                assert!(runs <= 22, "{runs} runs");
            }
        }
    }

    #[test]
    fn a_fleet_that_is_never_good_or_always_is_told() {
        assert_eq!(
            of(1_000_000, 0).0,
            Capacity::Never {
                goodput_ppm: 190_000
            }
        );
        assert_eq!(of(1_000_000, u64::MAX).0, Capacity::Beyond);
    }
}
