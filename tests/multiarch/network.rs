//! A machine of its own as far as the network is concerned: a namespace at the end of a line that can be cut.

use std::ffi::OsString;
use std::process::Command;

/// A network namespace and the line to it. Both are gone when it is dropped.
pub struct Line {
    name: String,
    /// Our end of the line.
    near: String,
    /// The other one, in the namespace.
    far: String,
    /// The address at the far end.
    pub address: String,
    /// The address at our end.
    pub near_address: String,
}

impl Line {
    /// Lays a line to a new namespace.
    pub fn lay() -> Line {
        let id = std::process::id();
        // Sixteen thousand small networks, so that tests side by side have one each.
        let network = format!("10.{}.{}", 200 + (id >> 12 & 3), id >> 6 & 63);
        let (first, name) = ((id & 63) * 4, format!("crosskit-{id}"));
        let (near, far) = (format!("ck{id}"), format!("cf{id}"));
        let [near_address, address] = [1, 2].map(|host| format!("{network}.{}", first + host));
        let line = Line { near, far, address, near_address, name };
        let (near, far) = (line.near.as_str(), line.far.as_str());
        ip(&["netns", "add", &line.name]);
        ip(&["link", "add", near, "type", "veth", "peer", "name", far]);
        ip(&["link", "set", far, "netns", &line.name]);
        ip(&["addr", "add", &format!("{}/30", line.near_address), "dev", near]);
        ip(&["link", "set", near, "up"]);
        ip(&["-n", &line.name, "addr", "add", &format!("{}/30", line.address), "dev", far]);
        ip(&["-n", &line.name, "link", "set", far, "up"]);
        ip(&["-n", &line.name, "link", "set", "lo", "up"]);
        line
    }

    /// What to start a program through, to have it at the far end.
    pub fn through(&self) -> Vec<OsString> {
        vec!["nsenter".into(), format!("--net=/run/netns/{}", self.name).into()]
    }

    /// What a program says that runs at the far end. Panics unless it succeeds.
    pub fn run(&self, program: &str, arguments: &[&str]) -> String {
        let namespace = format!("--net=/run/netns/{}", self.name);
        run("nsenter", &[&[namespace.as_str(), program], arguments].concat())
    }

    /// The interfaces at the far end besides loopback and the line's own.
    pub fn others(&self) -> Vec<String> {
        let told = self.run("ip", &["-o", "link"]);
        let names = told.lines().filter_map(|line| line.split(": ").nth(1));
        let names = names.filter_map(|name| name.split('@').next());
        names.filter(|name| *name != "lo" && *name != self.far).map(str::to_owned).collect()
    }

    /// Lets no more than so many bits in a second come from the far end.
    pub fn slow(&self, bits: u64) {
        let rate = bits.to_string();
        let shape = ["-n", &self.name, "qdisc", "replace", "dev", &self.far, "root", "tbf", "rate", &rate];
        run("tc", &[&shape[..], &["burst", "256kb", "latency", "50ms"]].concat());
    }

    /// Bytes that came from the far end so far, as the kernel counts them: headers and all.
    pub fn came(&self) -> u64 {
        let counter = format!("/sys/class/net/{}/statistics/rx_bytes", self.near);
        let text = std::fs::read_to_string(counter).expect("read the line's counter");
        text.trim().parse().expect("a counter is a number")
    }

    /// Cuts the line: whatever is sent is lost, and nobody is told.
    pub fn cut(&self) {
        ip(&["link", "set", &self.near, "down"]);
    }

    /// Mends it again.
    pub fn mend(&self) {
        ip(&["link", "set", &self.near, "up"]);
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        // With the namespace both ends of the line go.
        for command in [["link", "del", &self.near], ["netns", "del", &self.name]] {
            let _ = Command::new("ip").args(command).status();
        }
    }
}

fn ip(arguments: &[&str]) {
    run("ip", arguments);
}

fn run(program: &str, arguments: &[&str]) -> String {
    let said = Command::new(program).args(arguments).output();
    let said = said.unwrap_or_else(|e| panic!("{program}, which is part of iproute2: {e}"));
    assert!(said.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&said.stderr));
    String::from_utf8_lossy(&said.stdout).into_owned()
}
