use crosskit_platforms::Platform;

use crate::SchedulerError;

/// What belongs together and in which order.
#[derive(Debug, Clone, PartialEq)]
pub struct MergePlan<T> {
    /// The results, in the order in which they stand in an index or are written out.
    pub parts: Vec<(Platform, T)>,
}

impl<T> MergePlan<T> {
    /// Whether they make an index, rather than standing alone.
    pub fn is_index(&self) -> bool {
        self.parts.len() > 1
    }
}

/// Puts results in the order in which platforms were asked for. A platform that was asked for
/// twice is one; results that nobody has asked for come last, in their order.
pub fn merge<T>(asked: &[Platform], results: Vec<(Platform, T)>) -> Result<MergePlan<T>, SchedulerError> {
    let mut left: Vec<(Platform, Option<(Platform, T)>)> = Vec::with_capacity(results.len());
    for (platform, result) in results {
        let normal = platform.normalize();
        if left.iter().any(|(known, _)| *known == normal) {
            return Err(SchedulerError::Twice(Box::new(platform)));
        }
        left.push((normal, Some((platform, result))));
    }
    let mut parts = Vec::with_capacity(left.len());
    let mut seen: Vec<Platform> = Vec::new();
    for platform in asked {
        let normal = platform.normalize();
        if seen.contains(&normal) {
            continue;
        }
        let found = left.iter_mut().find(|(known, _)| *known == normal);
        let part = found.and_then(|(_, part)| part.take());
        parts.push(part.ok_or_else(|| SchedulerError::Missing(Box::new(platform.clone())))?);
        seen.push(normal);
    }
    parts.extend(left.into_iter().filter_map(|(_, part)| part));
    Ok(MergePlan { parts })
}
