//! Files of the kernel that tell figures.

use super::{Pressure, Traffic, Waited};

/// What is told as `KEY NUMBER` on a line each, with or without a unit after it.
pub(super) fn counters(text: &str) -> impl Iterator<Item = (&str, u64)> {
    text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        Some((words.next()?, words.next()?.parse().ok()?))
    })
}

/// A file of one number.
pub(super) fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// How much was waited: `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`, and the same for `full`.
pub(super) fn pressure(text: &str) -> Pressure {
    let mut all = Pressure::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let place = match words.next() {
            Some("some") => &mut all.some,
            Some("full") => &mut all.full,
            _ => continue,
        };
        let mut waited = Waited::default();
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            match key {
                "avg10" => waited.avg10 = value.parse().ok(),
                "avg60" => waited.avg60 = value.parse().ok(),
                "avg300" => waited.avg300 = value.parse().ok(),
                "total" => waited.total = value.parse().ok(),
                _ => {}
            }
        }
        *place = Some(waited);
    }
    all
}

/// What has gone through the interfaces of a network (`/proc/net/dev`), but for what never leaves it.
pub(crate) fn traffic(text: &str) -> Traffic {
    let mut all = Traffic::default();
    for (name, figures) in text.lines().filter_map(|line| line.split_once(':')) {
        if name.trim() == "lo" {
            continue;
        }
        let figures: Vec<u64> =
            figures.split_whitespace().map(|figure| figure.parse().unwrap_or(0)).collect();
        // Eight columns of what came, and eight of what went.
        let [
            rx_bytes,
            rx_packets,
            rx_errors,
            rx_dropped,
            _,
            _,
            _,
            _,
            tx_bytes,
            tx_packets,
            tx_errors,
            tx_dropped,
            ..,
        ] = figures[..]
        else {
            continue;
        };
        all.rx_bytes += rx_bytes;
        all.rx_packets += rx_packets;
        all.rx_errors += rx_errors;
        all.rx_dropped += rx_dropped;
        all.tx_bytes += tx_bytes;
        all.tx_packets += tx_packets;
        all.tx_errors += tx_errors;
        all.tx_dropped += tx_dropped;
    }
    all
}

impl Traffic {
    /// What has gone through since an earlier moment.
    pub(crate) fn since(self, earlier: Traffic) -> Self {
        Traffic {
            rx_bytes: self.rx_bytes.saturating_sub(earlier.rx_bytes),
            rx_packets: self.rx_packets.saturating_sub(earlier.rx_packets),
            rx_errors: self.rx_errors.saturating_sub(earlier.rx_errors),
            rx_dropped: self.rx_dropped.saturating_sub(earlier.rx_dropped),
            tx_bytes: self.tx_bytes.saturating_sub(earlier.tx_bytes),
            tx_packets: self.tx_packets.saturating_sub(earlier.tx_packets),
            tx_errors: self.tx_errors.saturating_sub(earlier.tx_errors),
            tx_dropped: self.tx_dropped.saturating_sub(earlier.tx_dropped),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_is_read() {
        let text = "some avg10=1.50 avg60=2.25 avg300=3.00 total=42\nfull avg10=0.00 avg60=0.10 avg300=0.20 total=7\n";
        let told = serde_json::to_value(pressure(text)).unwrap();
        assert_eq!(
            told["some"],
            serde_json::json!({"avg10": 1.5, "avg60": 2.25, "avg300": 3.0, "total": 42})
        );
        assert_eq!(told["full"]["total"], 7);
        let half = serde_json::to_value(pressure("some total=1\n")).unwrap();
        assert_eq!(half["full"], serde_json::Value::Null);
        assert_eq!(half["some"]["avg10"], serde_json::Value::Null);
    }

    #[test]
    fn traffic_is_that_of_all_interfaces_that_lead_out() {
        let text = "Inter-|   Receive                            |  Transmit\n\
            \x20face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop\n\
            \x20   lo:  999 9 9 9 0 0 0 0  999 9 9 9 0 0 0 0\n  eth0: 100 2 1 0 0 0 0 0 50 3 0 4 0 0 0 0\n\
            eth1:10 1 0 0 0 0 0 0 5 1 0 0 0 0 0 0\n";
        let now = traffic(text);
        assert_eq!((now.rx_bytes, now.rx_packets, now.rx_errors), (110, 3, 1));
        assert_eq!((now.tx_bytes, now.tx_packets, now.tx_dropped), (55, 4, 4));
        assert_eq!(now.since(Traffic { rx_bytes: 10, ..Traffic::default() }).rx_bytes, 100);
        let told = serde_json::to_value(Traffic { rx_bytes: 1, ..Traffic::default() }).unwrap();
        assert_eq!(told, serde_json::json!({"rxBytes": 1}));
    }
}
