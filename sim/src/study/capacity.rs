//! How fast requests may come until too few of them are served well.

/// The share of requests that must be served within the objective, in a million.
pub const GOODPUT_MIN_PPM: u64 = 950_000;
/// The found speed-up is within this of the true one, in a million of it.
const PRECISION_PPM: u64 = 20_000;
/// Speed-ups beyond are not tried: a thousand times either way.
const SPEEDUP_PPM: (u64, u64) = (1_000, 1_000_000_000);

/// What a search found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capacity {
    /// The largest speed-up of the arrivals that was seen to be served well, in millionths.
    Found { speedup_ppm: u64 },
    /// Even arrivals that come a thousand times slower are not; with so much goodput.
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
    let mut low = start_ppm.clamp(least, most);
    let mut high = low;
    if goodput(low)? >= GOODPUT_MIN_PPM {
        loop {
            if high == most {
                return Ok(Capacity::Beyond);
            }
            high = (high * 2).min(most);
            if goodput(high)? < GOODPUT_MIN_PPM {
                break;
            }
            low = high;
        }
    } else {
        loop {
            let is_least = low == least;
            low = (low / 2).max(least);
            let found = goodput(low)?;
            if found >= GOODPUT_MIN_PPM {
                break;
            }
            if is_least {
                return Ok(Capacity::Never { goodput_ppm: found });
            }
            high = low;
        }
    }
    while high - low > low / (1_000_000 / PRECISION_PPM) {
        let middle = low + (high - low) / 2;
        if goodput(middle)? >= GOODPUT_MIN_PPM {
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
            Ok::<_, Infallible>(if ppm <= knee_ppm { 960_000 } else { 400_000 })
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
                assert!(runs <= 20, "{runs} runs");
            }
        }
    }

    #[test]
    fn a_fleet_that_is_never_good_or_always_is_told() {
        assert_eq!(
            of(1_000_000, 0).0,
            Capacity::Never {
                goodput_ppm: 400_000
            }
        );
        assert_eq!(of(1_000_000, u64::MAX).0, Capacity::Beyond);
    }
}
