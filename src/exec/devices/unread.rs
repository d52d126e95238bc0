//! Hooks that end without having read what the runtime writes to them: the container's state on their standard input.
//! crun before 1.17 takes the closed pipe for a failure of the hook, if the hook is faster than it.

use super::Edits;

/// The shell that reads first, for every hook that runs outside of the container.
const SHELL: &str = "/bin/sh";
/// Takes all of the input, then becomes the program with the same on its input (without ends of lines, which mean nothing
/// in JSON). Uses nothing but the shell: the hook's environment may have no PATH.
const READS_FIRST: &str = r#"state=
while IFS= read -r line; do state="$state$line"; done
state="$state$line"
exec "$0" "$@" <<END
$state
END"#;

impl Edits {
    /// Has the input of hooks read whether they do or not. They get it as before, but are called by their path: a name of
    /// their own (`args[0]`) is lost. Hooks inside of the container stay as they are, since it may have no shell.
    pub(crate) fn read_input_of_hooks(&mut self) {
        for hook in self.hooks.iter_mut().filter(|hook| hook.hook_name != "startContainer") {
            let path = std::mem::replace(&mut hook.path, SHELL.to_owned());
            let reads_first = ["sh".to_owned(), "-c".to_owned(), READS_FIRST.to_owned(), path];
            let given = std::mem::take(&mut hook.args).into_iter().skip(1);
            hook.args = reads_first.into_iter().chain(given).collect();
        }
    }
}
