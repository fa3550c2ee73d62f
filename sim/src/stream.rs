//! Streams of chance for the simulated world: xoshiro256++, one stream for each purpose label, so
//! that a new kind of fault leaves the arrivals as they were. No float, no platform difference.

/// The unit of the fixed point is 2^60.
const Q60: u32 = 60;
/// ln 2 in 60-bit fixed point: floor(0.693147180559945309417232 * 2^60).
const LN_2_Q60: u128 = 799_144_290_325_165_978;
/// Terms of the area-tangent series: the next one is below 2^-52 for arguments up to 1/3.
const SERIES_TERMS: u64 = 16;

/// A probability without floats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ratio {
    pub num: u32,
    pub den: u32,
}

impl Ratio {
    pub const NEVER: Self = Self { num: 0, den: 1 };
    pub const ALWAYS: Self = Self { num: 1, den: 1 };

    /// # Panics
    /// When the ratio is not a probability.
    #[must_use]
    pub const fn new(num: u32, den: u32) -> Self {
        assert!(den > 0, "a ratio divides by something");
        assert!(num <= den, "a probability is at most one");
        Self { num, den }
    }

    #[must_use]
    pub const fn ppm(parts: u32) -> Self {
        Self::new(parts, 1_000_000)
    }
}

/// One stream, for one purpose.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Stream {
    state: [u64; 4],
}

impl Stream {
    /// The stream that belongs to this seed and this label, whatever other streams exist.
    #[must_use]
    pub fn new(seed: u64, label: &str) -> Self {
        let mut mixed = seed ^ 0x0063_6572_6575_7321;
        for byte in label.bytes() {
            mixed = splitmix(mixed ^ u64::from(byte)).1;
        }
        let mut state = [0; 4];
        for word in &mut state {
            let (next, value) = splitmix(mixed);
            mixed = next;
            *word = value;
        }
        Self { state }
    }

    pub const fn word(&mut self) -> u64 {
        let s = &mut self.state;
        let out = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let shifted = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= shifted;
        s[3] = s[3].rotate_left(45);
        out
    }

    /// Uniform in `0..bound`; zero when the bound is zero.
    pub const fn below(&mut self, bound: u64) -> u64 {
        let wide = (self.word() as u128) * (bound as u128);
        (wide >> 64) as u64
    }

    /// Uniform in `low..=high`.
    pub const fn between(&mut self, low: u64, high: u64) -> u64 {
        assert!(low <= high, "a range has an order");
        low + self.below(high - low + 1)
    }

    /// One of them, each as likely.
    ///
    /// # Panics
    /// When there is none.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.below(from.len() as u64)).expect("below a length")]
    }

    pub const fn chance(&mut self, ratio: Ratio) -> bool {
        self.below(ratio.den as u64) < ratio.num as u64
    }

    /// Exponentially distributed with this mean, rounded to the nearest whole.
    pub fn exponential(&mut self, mean: u64) -> u64 {
        let wide = u128::from(mean) * neg_ln_q60(self.word());
        let half = 1u128 << (Q60 - 1);
        u64::try_from((wide + half) >> Q60).expect("44 times a mean fits")
    }
}

/// What was drawn below some `u32`.
pub(crate) fn narrow(value: u64) -> u32 {
    u32::try_from(value).expect("drawn below a u32")
}

/// Returns the next state and the value.
const fn splitmix(state: u64) -> (u64, u64) {
    let next = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = next;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (next, z ^ (z >> 31))
}

/// Minus the natural logarithm of `word / 2^64`, in 60-bit fixed point.
fn neg_ln_q60(word: u64) -> u128 {
    let word = word.max(1);
    let zeros = word.leading_zeros();
    // The mantissa in [1, 2), as 60-bit fixed point.
    let mantissa = u128::from((word << zeros) >> (63 - Q60));
    let one = 1u128 << Q60;
    // ln m = 2 atanh((m - 1) / (m + 1)).
    let z = ((mantissa - one) << Q60) / (mantissa + one);
    let z_squared = (z * z) >> Q60;
    let mut power = z;
    let mut sum = 0u128;
    for term in 0..SERIES_TERMS {
        sum += power / u128::from(2 * term + 1);
        power = (power * z_squared) >> Q60;
    }
    (u128::from(zeros) + 1) * LN_2_Q60 - 2 * sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_give_independent_streams() {
        let mut arrivals = Stream::new(7, "arrivals");
        let mut losses = Stream::new(7, "losses");
        assert_ne!(arrivals.word(), losses.word());
        let first = Stream::new(7, "arrivals").word();
        assert_eq!(first, Stream::new(7, "arrivals").word());
        assert_ne!(first, Stream::new(8, "arrivals").word());
    }

    #[test]
    fn the_logarithm_meets_known_values() {
        // Half: ln 2. A quarter: 2 ln 2. Three quarters: 0.28768207245178...
        let close = |got: u128, want: u128| assert!(got.abs_diff(want) < 1 << 12, "{got} {want}");
        close(neg_ln_q60(1 << 63), LN_2_Q60);
        close(neg_ln_q60(1 << 62), 2 * LN_2_Q60);
        close(neg_ln_q60(3 << 62), 331_674_847_819_523_230);
        close(neg_ln_q60(u64::MAX), 0);
    }

    #[test]
    fn exponential_draws_have_their_mean() {
        let mut stream = Stream::new(1, "mean");
        let count = 200_000u64;
        let sum: u64 = (0..count).map(|_| stream.exponential(1_000_000)).sum();
        let mean = sum / count;
        assert!(mean.abs_diff(1_000_000) < 6_000, "{mean}");
    }

    #[test]
    fn draws_stay_in_their_range() {
        let mut stream = Stream::new(3, "range");
        for _ in 0..10_000 {
            assert!(stream.below(7) < 7);
            assert!((5..=9).contains(&stream.between(5, 9)));
        }
        assert_eq!(stream.below(0), 0);
        assert!(!stream.chance(Ratio::NEVER));
        assert!(stream.chance(Ratio::ALWAYS));
    }
}
