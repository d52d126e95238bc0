use crosskit_api::pb::{self, file_action::Action, user_opt::User};

use crate::{Limits, LlbError};

/// Checks all that can be known about an operation by itself: that it is one, and that its
/// indices stay within its inputs.
pub fn validate_op(op: &pb::Op, limits: &Limits) -> Result<(), LlbError> {
    let inputs = op.inputs.len();
    limits.check("number of inputs", inputs, limits.inputs)?;
    match &op.op {
        None => fail("invalid op with no operation"),
        Some(pb::op::Op::Source(_)) => Ok(()),
        Some(pb::op::Op::Exec(exec)) => validate_exec(exec, inputs, limits),
        Some(pb::op::Op::File(file)) => validate_file(file, inputs, limits),
        Some(pb::op::Op::Build(build)) => {
            for (name, input) in &build.inputs {
                if !within(input.input, inputs) {
                    return fail(format!("invalid index {} of build input {name:?}", input.input));
                }
            }
            Ok(())
        }
        Some(pb::op::Op::Merge(merge)) => {
            for input in &merge.inputs {
                if !within(input.input, inputs) {
                    return fail(format!("invalid merge input index {}, {inputs} provided", input.input));
                }
            }
            Ok(())
        }
        Some(pb::op::Op::Diff(diff)) => {
            let (Some(lower), Some(upper)) = (&diff.lower, &diff.upper) else {
                return fail("invalid diff op with nil lower or upper input");
            };
            for index in [lower.input, upper.input] {
                if !within(index, inputs) {
                    return fail(format!("invalid diff input index {index}"));
                }
            }
            Ok(())
        }
        Some(pb::op::Op::Passthrough(pass)) => validate_passthrough(pass, inputs),
    }
}

fn fail(message: impl Into<String>) -> Result<(), LlbError> {
    Err(LlbError::Invalid(message.into()))
}

/// An index of an input, or the -1 that stands for an empty one.
fn within(index: i64, count: usize) -> bool {
    index == -1 || usize::try_from(index).is_ok_and(|index| index < count)
}

fn validate_exec(exec: &pb::ExecOp, inputs: usize, limits: &Limits) -> Result<(), LlbError> {
    let Some(meta) = &exec.meta else {
        return fail("invalid exec op with no meta");
    };
    if meta.args.is_empty() {
        return fail("invalid exec op with no args");
    }
    if exec.mounts.is_empty() {
        return fail("invalid exec op with no mounts");
    }
    if !exec.mounts.iter().any(|mount| mount.dest == "/") {
        return fail("invalid exec op with no rootfs");
    }
    limits.check("number of mounts", exec.mounts.len(), limits.mounts)?;
    for mount in &exec.mounts {
        if !within(mount.input, inputs) {
            return fail(format!(
                "invalid mountinput {} of mount {:?}, {inputs} provided",
                mount.input, mount.dest
            ));
        }
        if mount.output < -1 || mount.output >= exec.mounts.len() as i64 {
            return fail(format!("invalid output index {} of mount {:?}", mount.output, mount.dest));
        }
        validate_mount_type(mount)?;
        if pb::MountContentCache::try_from(mount.content_cache).is_err() {
            return fail(format!("invalid mount cache content {}", mount.content_cache));
        }
    }
    if pb::NetMode::try_from(exec.network).is_err() {
        return fail(format!("invalid network mode {}", exec.network));
    }
    if pb::SecurityMode::try_from(exec.security).is_err() {
        return fail(format!("invalid security mode {}", exec.security));
    }
    Ok(())
}

/// Checks that a mount's type is one, and one that a mount there may have. Mounts of containers, which come in no graph,
/// are checked by this as well.
pub fn validate_mount_type(mount: &pb::Mount) -> Result<(), LlbError> {
    let Ok(kind) = pb::MountType::try_from(mount.mount_type) else {
        return fail(format!("mount type {} of mount {:?} not implemented", mount.mount_type, mount.dest));
    };
    if mount.dest == "/" && kind != pb::MountType::Bind {
        return fail(format!("invalid mount type {} for /", kind.as_str_name()));
    }
    Ok(())
}

fn validate_file(file: &pb::FileOp, inputs: usize, limits: &Limits) -> Result<(), LlbError> {
    let actions = &file.actions;
    if actions.is_empty() {
        return fail("invalid file op with no actions");
    }
    limits.check("number of file actions", actions.len(), limits.actions)?;
    let all = inputs + actions.len();
    let mut outputs = vec![false; actions.len()];
    let mut highest = None;
    for (position, action) in actions.iter().enumerate() {
        // An action sees the inputs and what the actions before it made.
        let seen = inputs + position;
        for (what, index) in [("", action.input), ("secondary ", action.secondary_input)] {
            if !within(index, all) {
                return fail(format!("invalid {what}input index {index}, {all} provided"));
            }
            if !within(index, seen) {
                return fail(format!("loop from index {index}"));
            }
        }
        if action.output != -1 {
            let slot = usize::try_from(action.output).ok().filter(|slot| *slot < actions.len());
            let Some(slot) = slot else {
                return fail(format!("invalid output index {}", action.output));
            };
            if std::mem::replace(&mut outputs[slot], true) {
                return fail(format!("duplicate output {slot}"));
            }
            highest = highest.max(Some(slot));
        }
        let owner = match &action.action {
            None => return fail("invalid file action with no operation"),
            Some(Action::Copy(copy)) => copy.owner.as_ref(),
            Some(Action::Mkfile(file)) => file.owner.as_ref(),
            Some(Action::Mkdir(dir)) => dir.owner.as_ref(),
            Some(Action::Symlink(link)) => link.owner.as_ref(),
            Some(Action::Rm(_)) => None,
        };
        for user in owner.into_iter().flat_map(|owner| [&owner.user, &owner.group]).flatten() {
            if let Some(User::ByName(name)) = &user.user
                && !within(name.input, inputs)
            {
                return fail(format!("invalid user index {}", name.input));
            }
        }
    }
    let Some(highest) = highest else {
        return fail("no outputs specified");
    };
    match outputs[..=highest].iter().position(|set| !set) {
        Some(missing) => fail(format!("missing output index {missing}")),
        None => Ok(()),
    }
}

fn validate_passthrough(pass: &pb::PassthroughOp, inputs: usize) -> Result<(), LlbError> {
    if pass.id.is_empty() {
        return fail("invalid passthrough op with no id");
    }
    if pass.outputs.is_empty() {
        return fail("invalid passthrough op with no outputs");
    }
    match pass.outputs.iter().find(|index| **index == -1 || !within(**index, inputs)) {
        Some(index) => fail(format!("invalid passthrough output input index {index}")),
        None => Ok(()),
    }
}
