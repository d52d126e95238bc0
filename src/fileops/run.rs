//! Running the actions of a file operation on snapshots.
//!
//! An action starts from an input or from what an earlier action made. What only one other action
//! uses stays open for it; everything else becomes a snapshot.

use crate::copy::Target;
use crate::root::{Owner, Root};
use crate::{Error, Result, actions, copy, owner};
use crosskit_api::pb::{self, file_action::Action, user_opt};
use crosskit_snapshots::{About, Mounted, MutableRef, Ref, Snapshots};
use futures::FutureExt;
use futures::future::BoxFuture;
use std::collections::{HashMap, HashSet};
use tokio_util::sync::CancellationToken;

/// Why an operation failed, and what there is to look at.
#[derive(Debug, thiserror::Error)]
#[error("{source}")]
pub struct Failure {
    /// Which action failed, by its number in the operation, if it was one.
    pub action: Option<usize>,
    /// What each action has made, as far as that can be had: what the failed one had made until then, and what it read.
    pub made: Vec<Option<Ref>>,
    /// Why.
    pub source: Error,
}

impl From<Error> for Failure {
    fn from(source: Error) -> Self {
        Failure { action: None, made: Vec::new(), source }
    }
}

/// Runs an operation: its actions over its inputs. The results are in the order of the
/// operation's outputs. Dropping the future gives the work up and leaves nothing.
pub async fn run(
    snapshots: &Snapshots,
    op: &pb::FileOp,
    inputs: &[Option<Ref>],
    description: &str,
) -> Result<Vec<Option<Ref>>, Failure> {
    let outputs = check(op, inputs.len())?;
    let mut run = Run {
        snapshots,
        op,
        inputs,
        description,
        users: uses(op),
        values: HashMap::new(),
        cancel: CancellationToken::new(),
    };
    let _give_up = run.cancel.clone().drop_guard();
    let mut results = Vec::with_capacity(outputs.len());
    for index in outputs {
        run.make(index).await?;
        results.push(run.result(index).await?);
    }
    Ok(results)
}

/// Checks all indices. Returns what each output is.
fn check(op: &pb::FileOp, inputs: usize) -> Result<Vec<i64>> {
    let limit = (inputs + op.actions.len()) as i64;
    let mut outputs: HashMap<i64, i64> = HashMap::new();
    for (number, action) in op.actions.iter().enumerate() {
        let own = (inputs + number) as i64;
        for (index, name) in [(action.input, "input"), (action.secondary_input, "secondary input")] {
            if index < -1 || index >= limit {
                return Err(Error::Invalid(format!("invalid {name} index {index}, {limit} provided")));
            }
            if index >= own {
                return Err(Error::Invalid(format!("action {number}: {name} {index} is not made before it")));
            }
        }
        if action.output != -1 && outputs.insert(action.output, own).is_some() {
            return Err(Error::Invalid(format!("duplicate output {}", action.output)));
        }
    }
    if outputs.is_empty() {
        return Err(Error::Invalid("no outputs specified".into()));
    }
    let of = |index: i64| outputs.get(&index).copied();
    (0..outputs.len() as i64)
        .map(|index| of(index).ok_or_else(|| Error::Invalid(format!("missing output index {index}"))))
        .collect()
}

/// How often each value is asked for.
fn uses(op: &pb::FileOp) -> HashMap<i64, usize> {
    let mut uses: HashMap<i64, usize> = HashMap::new();
    for action in &op.actions {
        for index in [action.input, action.secondary_input].into_iter().chain(named(action)) {
            *uses.entry(index).or_default() += 1;
        }
    }
    uses
}

/// The values whose files of names an action looks into.
fn named(action: &pb::FileAction) -> Vec<i64> {
    let owner = match &action.action {
        Some(Action::Copy(copy)) => copy.owner.as_ref(),
        Some(Action::Mkfile(mkfile)) => mkfile.owner.as_ref(),
        Some(Action::Mkdir(mkdir)) => mkdir.owner.as_ref(),
        Some(Action::Symlink(symlink)) => symlink.owner.as_ref(),
        Some(Action::Rm(_)) | None => None,
    };
    let options = owner.into_iter().flat_map(|owner| [owner.user.as_ref(), owner.group.as_ref()]);
    options.flatten().filter_map(|option| named_input(Some(option))).collect()
}

fn named_input(option: Option<&pb::UserOpt>) -> Option<i64> {
    match option?.user.as_ref()? {
        user_opt::User::ByName(named) => Some(named.input),
        user_opt::User::ById(_) => None,
    }
}

/// A snapshot that actions are run on, one after the other.
struct Work {
    // In this order: what is open goes before what it is in.
    target: Option<Target>,
    mounted: Option<Mounted>,
    mutable: MutableRef,
    /// Files of others that it shares; see [`Target`].
    shared: HashSet<u64>,
}

impl Work {
    async fn open(&mut self) -> Result<()> {
        if self.target.is_none() {
            let mounted = self.mutable.mount().await?;
            let mut target = Target::open(&mounted)?;
            target.shared = std::mem::take(&mut self.shared);
            self.target = Some(target);
            self.mounted = Some(mounted);
        }
        Ok(())
    }

    /// Unmounts.
    fn close(&mut self) {
        if let Some(target) = self.target.take() {
            self.shared = target.shared;
        }
        self.mounted = None;
    }

    async fn commit(mut self) -> Result<Ref> {
        self.close();
        Ok(self.mutable.commit().await?)
    }
}

enum Value {
    Ready(Ref),
    Open(Box<Work>),
}

struct Run<'a> {
    snapshots: &'a Snapshots,
    op: &'a pb::FileOp,
    inputs: &'a [Option<Ref>],
    description: &'a str,
    users: HashMap<i64, usize>,
    values: HashMap<i64, Value>,
    cancel: CancellationToken,
}

impl Run<'_> {
    /// Makes sure that a value is there.
    fn make(&mut self, index: i64) -> BoxFuture<'_, Result<(), Failure>> {
        async move {
            let number = index - self.inputs.len() as i64;
            if number < 0 || self.values.contains_key(&index) {
                return Ok(());
            }
            let number = number as usize;
            let Some(action) = self.op.actions.get(number) else {
                return Err(Error::Invalid(format!("invalid index {index}")).into());
            };
            for needed in [action.input, action.secondary_input].into_iter().chain(named(action)) {
                if needed >= index || needed < -1 {
                    return Err(Error::Invalid(format!("invalid user index {needed}")).into());
                }
                self.make(needed).await?;
            }
            let failed = |source| Failure { action: Some(number), made: Vec::new(), source };
            let mut work = self.start(action.input).await.map_err(failed)?;
            let outcome = match self.sources(action).await {
                Ok((sources, users)) => {
                    let (back, outcome) = self.act(work, action, sources, users).await;
                    work = back;
                    outcome
                }
                Err(why) => Err(why),
            };
            if let Err(source) = outcome {
                // What is there so far helps whoever looks for the reason.
                let made = self.made(number, work).await;
                return Err(Failure { action: Some(number), made, source });
            }
            let once = self.users.get(&index).copied().unwrap_or(0) == 1;
            let value = match once && action.output == -1 {
                true => Value::Open(work),
                false => Value::Ready(work.commit().await.map_err(failed)?),
            };
            self.values.insert(index, value);
            Ok(())
        }
        .boxed()
    }

    /// What each action has made; `work` is that of the one that failed.
    async fn made(&mut self, failed: usize, work: Box<Work>) -> Vec<Option<Ref>> {
        let mut made = vec![None; self.op.actions.len()];
        for (index, value) in self.values.drain() {
            let number = usize::try_from(index).ok().and_then(|index| index.checked_sub(self.inputs.len()));
            if let Some(place) = number.and_then(|number| made.get_mut(number)) {
                *place = match value {
                    Value::Ready(reference) => Some(reference),
                    Value::Open(work) => work.commit().await.ok(),
                };
            }
        }
        if let Some(place) = made.get_mut(failed) {
            *place = work.commit().await.ok();
        }
        made
    }

    /// What an action works on: what the one before it left open, or something new.
    async fn start(&mut self, index: i64) -> Result<Box<Work>> {
        let parent = match self.values.get(&index) {
            Some(Value::Open(_)) => match self.values.remove(&index) {
                Some(Value::Open(work)) => return Ok(work),
                _ => None,
            },
            Some(Value::Ready(reference)) => Some(reference.clone()),
            None => self.input(index),
        };
        let mutable = self.snapshots.new_mutable(parent.as_ref(), About::new(self.description))?;
        Ok(Box::new(Work { target: None, mounted: None, mutable, shared: HashSet::new() }))
    }

    fn input(&self, index: i64) -> Option<Ref> {
        self.inputs.get(usize::try_from(index).ok()?)?.clone()
    }

    /// The tree of a value, to read from; none if there is nothing.
    async fn tree(&mut self, index: i64) -> Result<Option<Mounted>> {
        match self.values.get_mut(&index) {
            Some(Value::Open(work)) => {
                work.open().await?;
                Ok(work.mounted.clone())
            }
            Some(Value::Ready(reference)) => Ok(Some(reference.mount_readonly().await?)),
            None => match self.input(index) {
                Some(input) => Ok(Some(input.mount_readonly().await?)),
                None => Ok(None),
            },
        }
    }

    /// The tree to copy from, and those whose files of names count, by their index.
    async fn sources(&mut self, action: &pb::FileAction) -> Result<(Option<Mounted>, HashMap<i64, Mounted>)> {
        let from = match &action.action {
            Some(Action::Copy(_)) => self.tree(action.secondary_input).await?,
            _ => None,
        };
        let mut users = HashMap::new();
        for index in named(action) {
            // Names in what this action itself works on are looked up there.
            if let Some(tree) = self.tree(index).await? {
                users.insert(index, tree);
            }
        }
        Ok((from, users))
    }

    async fn act(
        &self,
        mut work: Box<Work>,
        action: &pb::FileAction,
        from: Option<Mounted>,
        users: HashMap<i64, Mounted>,
    ) -> (Box<Work>, Result<()>) {
        if let Err(why) = work.open().await {
            return (work, Err(why));
        }
        let (action, cancel, snapshots) = (action.clone(), self.cancel.clone(), self.snapshots.clone());
        // The work is owned by the thread that does it, so that giving up removes nothing under it.
        let task = tokio::task::spawn_blocking(move || {
            let outcome = act(&snapshots, &mut work, &action, from, users, &cancel);
            (work, outcome)
        });
        match task.await {
            Ok((mut work, outcome)) => {
                if work.target.as_ref().is_some_and(|target| target.behind) {
                    work.close();
                }
                (work, outcome)
            }
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }

    async fn result(&mut self, index: i64) -> Result<Option<Ref>, Failure> {
        match self.values.remove(&index) {
            Some(Value::Ready(reference)) => {
                self.values.insert(index, Value::Ready(reference.clone()));
                Ok(Some(reference))
            }
            Some(Value::Open(work)) => Ok(Some(work.commit().await?)),
            None => Ok(self.input(index)),
        }
    }
}

/// One action. Blocks.
fn act(
    snapshots: &Snapshots,
    work: &mut Work,
    action: &pb::FileAction,
    from: Option<Mounted>,
    users: HashMap<i64, Mounted>,
    cancel: &CancellationToken,
) -> Result<()> {
    let own = work.mounted.as_ref().map(|m| m.path().to_path_buf());
    let target = work.target.as_mut().ok_or_else(|| Error::Invalid("an action without a target".into()))?;
    let look_up = |wanted: &Option<pb::ChownOpt>| -> Result<Option<Owner>> {
        let Some(wanted) = wanted else { return Ok(None) };
        let root = |option: Option<&pb::UserOpt>| -> Result<Option<Root>> {
            match named_input(option) {
                None => Ok(None),
                Some(index) if index < 0 => Err(Error::Invalid(format!("invalid user index {index}"))),
                Some(index) => match (users.get(&index), &own) {
                    (Some(tree), _) => Root::open(tree.path()).map(Some),
                    (None, Some(own)) => Root::open(own).map(Some),
                    (None, None) => Ok(None),
                },
            }
        };
        let (users, groups) = (root(wanted.user.as_ref())?, root(wanted.group.as_ref())?);
        owner::owner(wanted, users.as_ref(), groups.as_ref()).map(Some)
    };
    match &action.action {
        Some(Action::Copy(copy)) => {
            let owner = look_up(&copy.owner)?;
            match from {
                Some(from) => copy::copy(copy, &from, target, owner, cancel),
                None => copy::copy_from(copy, copy::nothing(snapshots)?, target, owner, cancel),
            }
        }
        Some(Action::Mkfile(mkfile)) => actions::mkfile(mkfile, target, look_up(&mkfile.owner)?),
        Some(Action::Mkdir(mkdir)) => actions::mkdir(mkdir, target, look_up(&mkdir.owner)?),
        Some(Action::Symlink(symlink)) => actions::symlink(symlink, target, look_up(&symlink.owner)?),
        Some(Action::Rm(rm)) => actions::rm(rm, target),
        None => Err(Error::Invalid("a file action without a kind".into())),
    }
}
