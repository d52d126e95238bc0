use std::f64::consts::TAU;

/// Numbers that look random and are the same for the same seed, in every release.
#[derive(Clone)]
pub(crate) struct Random(u64);

impl Random {
    /// A generator of its own for each combination of numbers.
    pub(crate) fn new(seed: u64, of: u64) -> Self {
        let mut random = Random(seed ^ of.wrapping_mul(0xd6e8_feb8_6659_fd93));
        random.next();
        Random(random.next())
    }

    /// SplitMix64.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Evenly between 0 and 1, never 0.
    pub(crate) fn part(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1u64 << 53) as f64
    }

    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        self.part() <= probability
    }

    /// One of these, each as likely as its weight says.
    pub(crate) fn weighted<T: Copy>(&mut self, choices: &[(T, f64)]) -> Option<T> {
        let total: f64 = choices.iter().map(|(_, weight)| weight).sum();
        let mut left = self.part() * total;
        let found = choices.iter().find(|(_, weight)| {
            left -= weight;
            left <= 0.0
        });
        found.or(choices.last()).map(|(choice, _)| *choice)
    }

    /// The time to the next of events that come at this mean distance.
    pub(crate) fn exponential(&mut self, mean: f64) -> f64 {
        -self.part().ln() * mean
    }

    /// Half of them below the median; two thirds within a factor of e^sigma.
    pub(crate) fn lognormal(&mut self, median: f64, sigma: f64) -> f64 {
        let normal = (-2.0 * self.part().ln()).sqrt() * (TAU * self.part()).cos();
        median * (normal * sigma).exp()
    }
}

/// Few of many are wanted often: the probability of the nth falls with n.
pub(crate) struct Popularity(Vec<f64>);

impl Popularity {
    pub(crate) fn new(count: usize, exponent: f64) -> Self {
        let mut sum = 0.0;
        let weights = (1..=count).map(|rank| {
            sum += (rank as f64).powf(-exponent);
            sum
        });
        Popularity(weights.collect())
    }

    pub(crate) fn pick(&self, random: &mut Random) -> usize {
        let wanted = random.part() * self.0.last().copied().unwrap_or(1.0);
        self.0.partition_point(|sum| *sum < wanted).min(self.0.len().saturating_sub(1))
    }
}
