//! When something that takes its time is looked at.

use std::time::Duration;

/// From one look to the next at first (BuildKit executor/resources).
const FIRST: Duration = Duration::from_secs(2);

/// Samples of something that may take seconds or hours: as soon as there are too many, every second one goes, and from then on
/// they are taken half as often.
#[derive(Clone, Debug)]
pub struct Rhythm<T> {
    every: Duration,
    most: usize,
    taken: Vec<T>,
}

impl<T> Rhythm<T> {
    /// Every two seconds, but never more samples than `most`.
    pub fn new(most: usize) -> Self {
        Rhythm { every: FIRST, most: most.max(2), taken: Vec::new() }
    }

    /// Begins with this time between two looks.
    pub(crate) fn every(self, every: Duration) -> Self {
        Rhythm { every, ..self }
    }

    /// How long it is to the next look.
    pub fn pause(&self) -> Duration {
        self.every
    }

    /// Adds a sample.
    pub fn add(&mut self, sample: T) {
        self.taken.push(sample);
        if self.taken.len() >= self.most {
            // Those stay that would have been taken at the new pace.
            let mut stays = true;
            self.taken.retain(|_| {
                stays = !stays;
                stays
            });
            self.every *= 2;
        }
    }

    /// What was taken.
    pub fn samples(&self) -> &[T] {
        &self.taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longer_it_takes_the_less_often_it_is_looked_at() {
        let mut rhythm = Rhythm::new(10);
        let mut at = Duration::ZERO;
        let mut samples = 0;
        while at < Duration::from_secs(24 * 3600) {
            at += rhythm.pause();
            rhythm.add(at.as_secs());
            samples += 1;
            assert!(rhythm.samples().len() < 10);
        }
        assert!(samples < 100, "{samples} in a day");
        let kept = rhythm.samples();
        let pace = kept[1] - kept[0];
        assert!(kept.windows(2).all(|two| two[1] - two[0] == pace), "{kept:?}");
        assert_eq!(kept[0], pace, "the first look was after the same time: {kept:?}");
    }
}
