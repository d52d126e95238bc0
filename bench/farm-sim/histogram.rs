/// Buckets for each doubling: values are known to about 3 %.
const PARTS: usize = 32;

/// How often values of each size came.
#[derive(Clone)]
pub struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    sum: u128,
    most: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram { buckets: vec![0; 64 * PARTS], count: 0, sum: 0, most: 0 }
    }
}

fn bucket(value: u64) -> usize {
    let value = value.max(1);
    let doubling = value.ilog2() as usize;
    let part = ((u128::from(value) * PARTS as u128) >> doubling) as usize - PARTS;
    doubling * PARTS + part
}

impl Histogram {
    /// One more.
    pub fn add(&mut self, value: u64) {
        self.buckets[bucket(value)] += 1;
        self.count += 1;
        self.sum += u128::from(value);
        self.most = self.most.max(value);
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The mean.
    pub fn mean(&self) -> f64 {
        self.sum as f64 / self.count.max(1) as f64
    }

    /// The largest.
    pub fn most(&self) -> u64 {
        self.most
    }

    /// The value below which this part of all lies, to about 3 %.
    pub fn quantile(&self, part: f64) -> u64 {
        let wanted = (self.count as f64 * part).ceil() as u64;
        let mut seen = 0;
        let found = self.buckets.iter().position(|count| {
            seen += count;
            seen >= wanted.max(1)
        });
        found.map_or(0, |bucket| {
            let (doubling, part) = (bucket / PARTS, bucket % PARTS);
            let start = (PARTS + part + 1) as u128;
            ((start << doubling) / PARTS as u128) as u64
        })
    }
}
