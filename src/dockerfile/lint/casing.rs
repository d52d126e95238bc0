//! Rules about the file as a whole.

use crate::error::Lines;
use crate::instruction::Stage;
use crate::lint::{Linter, rules};
use crate::text::{is_lower, is_upper};

/// Names that a stage should not have.
const RESERVED: [&str; 2] = ["context", "scratch"];

/// Names that are taken twice or that stand for something else.
pub(crate) fn stage_names(stages: &[Stage], lint: &Linter) {
    let mut seen = std::collections::HashSet::new();
    for stage in stages.iter().filter(|stage| !stage.name.is_empty()) {
        if RESERVED.contains(&stage.name.as_str()) {
            lint.warn(&rules::RESERVED_STAGE_NAME, stage.lines, rules::reserved_stage_name(&stage.name));
        }
        if !seen.insert(&stage.name) {
            lint.warn(&rules::DUPLICATE_STAGE_NAME, stage.lines, rules::duplicate_stage_name(&stage.name));
        }
    }
}

/// Keywords that are not written as most of them are.
pub(crate) fn keywords(stages: &[Stage], lint: &Linter) {
    if !lint.listens() {
        return;
    }
    let all = || {
        stages.iter().flat_map(|stage| {
            let first = std::iter::once((stage.keyword.as_str(), stage.lines));
            first.chain(stage.instructions.iter().map(|i| (i.keyword.as_str(), i.lines)))
        })
    };
    let lower = all().filter(|(word, _)| is_lower(word)).count();
    let upper = all().filter(|(word, _)| !is_lower(word) && is_upper(word)).count();
    let majority_lower = lower > upper;
    let odd = |(word, _): &(&str, Lines)| if majority_lower { !is_lower(word) } else { !is_upper(word) };
    let casing = if majority_lower { "lowercase" } else { "uppercase" };
    for (word, lines) in all().filter(odd) {
        let message = rules::consistent_instruction_casing(word, casing);
        lint.warn(&rules::CONSISTENT_INSTRUCTION_CASING, lines, message);
    }
}
