//! People who sign: with keys of their own, made anew for each test.

use super::{folder, shell};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A folder with somebody's keys.
pub struct Signers {
    pub dir: PathBuf,
    _dir: tempfile::TempDir,
}

impl Drop for Signers {
    fn drop(&mut self) {
        // The agent that gpg started for this folder.
        let _ = Command::new("gpgconf").args(["--kill", "gpg-agent"]).env("GNUPGHOME", &self.dir).status();
    }
}

impl Signers {
    pub fn new() -> Signers {
        let (guard, dir) = folder();
        // Signatures of a kind that nobody makes by mistake any more.
        std::fs::write(dir.join("gpg.conf"), "allow-weak-digest-algos\n").unwrap();
        Signers { dir, _dir: guard }
    }

    /// What gpg says on its output, with these arguments.
    pub fn gpg(&self, arguments: &[&str]) -> String {
        let mut gpg = Command::new("gpg");
        gpg.arg("--homedir").arg(&self.dir);
        gpg.args(["--batch", "--yes", "--no-tty", "--pinentry-mode", "loopback", "--passphrase", ""]);
        let out = gpg.args(arguments).output().unwrap();
        assert!(out.status.success(), "gpg {arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    }

    /// Makes a key for a name, at a time as gpg writes it (empty for now), for some time. Returns its public part.
    pub fn pgp(&self, name: &str, algorithm: &str, made: &str, expires: &str) -> String {
        let make = ["--quick-generate-key", name, algorithm, "sign", expires];
        self.gpg(&[&at(made)[..], &make].concat());
        self.public(name)
    }

    pub fn public(&self, name: &str) -> String {
        self.gpg(&["--armor", "--export", name])
    }

    /// A detached signature of a file, made at a time, with more arguments.
    pub fn sign(&self, name: &str, made: &str, more: &[&str], file: &Path) -> String {
        let file = file.to_string_lossy();
        let sign = ["--armor", "--local-user", name, "--output", "-", "--detach-sign", &file];
        self.gpg(&[&at(made)[..], more, &sign].concat())
    }

    /// Arguments that let git sign as somebody with a key of gpg, at a time.
    pub fn git_pgp(&self, name: &str, made: &str) -> String {
        let program = self.dir.join(format!("sign-{name}{made}"));
        let at = at(made).join(" ");
        let text = format!(
            "#!/bin/sh\nexec gpg --homedir {} --batch --pinentry-mode loopback --passphrase '' {at} \"$@\"\n",
            self.dir.display()
        );
        std::fs::write(&program, text).unwrap();
        shell(&self.dir, &format!("chmod +x '{}'", program.display()));
        format!("-c user.signingkey={name} -c gpg.program={}", program.display())
    }

    /// Makes a key of SSH. Returns its public part, and arguments that let git sign with it.
    pub fn ssh(&self, name: &str, kind: &str) -> (String, String) {
        shell(&self.dir, &format!("ssh-keygen -q {kind} -N '' -C {name} -f {name}.ssh"));
        let file = self.dir.join(format!("{name}.ssh"));
        let public = std::fs::read_to_string(file.with_extension("ssh.pub")).unwrap();
        (public, format!("-c gpg.format=ssh -c user.signingkey={}", file.display()))
    }
}

fn at(time: &str) -> Vec<&str> {
    match time {
        "" => Vec::new(),
        time => vec!["--faked-system-time", time],
    }
}
