//! Who a process runs as.

use crate::{Error, Result, rootfs::Rootfs, spec::User};

/// Ids that fit: passwd and group files of other systems may hold anything.
const MAX_ID: i64 = (1 << 31) - 1;

/// One line of `/etc/passwd`.
struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
}

fn accounts(passwd: &str) -> impl Iterator<Item = Account<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields.next().filter(|name| !name.is_empty() && !name.starts_with('#'))?;
        let mut number = |skip| fields.nth(skip).and_then(|id| id.parse().ok()).unwrap_or(0);
        Some(Account { name, uid: number(1), gid: number(0) })
    })
}

/// One line of `/etc/group`.
struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

fn groups(group: &str) -> impl Iterator<Item = Group<'_>> {
    group.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields.next().filter(|name| !name.is_empty() && !name.starts_with('#'))?;
        let gid = fields.nth(1).and_then(|id| id.parse().ok()).unwrap_or(0);
        Some(Group { name, gid, members: fields.next().unwrap_or_default() })
    })
}

/// Finds out user, group and additional groups for `""`, `name`, `uid`, `user:group` in any mix of names and numbers.
///
/// Two numbers (or `root`) stand for themselves. Else `/etc/passwd` and `/etc/group` of the root filesystem are asked; a
/// number that they do not know stands for itself, a name is an error. Without a group the user gets all groups that
/// list it.
pub(crate) fn find(rootfs: &Rootfs, wanted: &str) -> Result<User> {
    if let Some((user, group)) = wanted.split_once(':')
        && let (Some(uid), Some(gid)) = (plain_id(user), plain_id(group))
    {
        return Ok(User { uid, gid, additional_gids: vec![gid] });
    }
    // A file that cannot be read knows nobody.
    let read = |path| rootfs.read(path).ok().flatten().unwrap_or_default();
    resolve(wanted, &read("/etc/passwd"), || read("/etc/group"))
}

fn plain_id(text: &str) -> Option<u32> {
    if text == "root" { Some(0) } else { text.parse().ok() }
}

fn ranged(text: &str) -> Option<Result<u32>> {
    let id: i64 = text.parse().ok()?;
    if (0..=MAX_ID).contains(&id) {
        return Some(Ok(id as u32));
    }
    let reason = format!("uids and gids must be in range 0-{MAX_ID}");
    Some(Err(Error::Invalid { what: "user", value: text.to_owned(), reason }))
}

fn resolve(wanted: &str, passwd: &str, group: impl FnOnce() -> String) -> Result<User> {
    let (user, wanted_group) = wanted.split_once(':').unwrap_or((wanted, ""));
    let user = if user.is_empty() { "0" } else { user };
    let number: Option<i64> = user.parse().ok();
    let account = accounts(passwd)
        .find(|account| account.name == user || number.is_some_and(|n| n == i64::from(account.uid)));
    let (mut found, name) = match (&account, ranged(user)) {
        (Some(account), _) => (User { uid: account.uid, gid: account.gid, ..User::default() }, account.name),
        (None, Some(uid)) => (User { uid: uid?, ..User::default() }, ""),
        (None, None) => {
            let reason = "no matching entries in passwd file".to_owned();
            return Err(Error::NoUser { name: user.to_owned(), reason });
        }
    };
    if !wanted_group.is_empty() {
        let text = group();
        let number: Option<i64> = wanted_group.parse().ok();
        let matching = groups(&text)
            .find(|group| group.name == wanted_group || number.is_some_and(|n| n == i64::from(group.gid)));
        found.gid = match (matching, ranged(wanted_group)) {
            (Some(group), _) => group.gid,
            (None, Some(gid)) => gid?,
            (None, None) => return Err(Error::NoGroup { name: wanted_group.to_owned() }),
        };
        found.additional_gids = vec![found.gid];
        return Ok(found);
    }
    found.additional_gids.push(found.gid);
    if !name.is_empty() {
        for group in groups(&group()).filter(|group| group.members.split(',').any(|member| member == name)) {
            if !found.additional_gids.contains(&group.gid) {
                found.additional_gids.push(group.gid);
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n# comment\n\
                          app:x:1000:1001:App:/home/app:/bin/sh\nbroken\n";
    const GROUP: &str = "root:x:0:root\nwheel:x:10:root,app\napp:x:1001:\ndocker:x:999:app\n";

    fn found(wanted: &str) -> Result<(u32, u32, Vec<u32>), String> {
        let found = resolve(wanted, PASSWD, || GROUP.to_owned());
        found.map(|user| (user.uid, user.gid, user.additional_gids)).map_err(|error| error.to_string())
    }

    #[test]
    fn names_numbers_and_groups() {
        type Known = (u32, u32, &'static [u32]);
        let table: &[(&str, Known)] = &[
            ("", (0, 0, &[0, 10])),
            ("root", (0, 0, &[0, 10])),
            ("app", (1000, 1001, &[1001, 10, 999])),
            ("1000", (1000, 1001, &[1001, 10, 999])),
            ("4711", (4711, 0, &[0])),
            ("app:docker", (1000, 999, &[999])),
            ("app:10", (1000, 10, &[10])),
            ("app:12345", (1000, 12345, &[12345])),
            ("4711:wheel", (4711, 10, &[10])),
            (":wheel", (0, 10, &[10])),
        ];
        for (wanted, (uid, gid, groups)) in table {
            assert_eq!(found(wanted), Ok((*uid, *gid, groups.to_vec())), "{wanted}");
        }
    }

    #[test]
    fn unknown_names_are_errors() {
        let table = [
            ("bar", "unable to find user bar: no matching entries in passwd file"),
            ("app:bar", "unable to find group bar: no matching entries in group file"),
            ("4294967296", "uids and gids must be in range 0-2147483647"),
            ("-1", "uids and gids must be in range"),
        ];
        for (wanted, message) in table {
            let said = found(wanted).expect_err(wanted);
            assert!(said.contains(message), "{wanted}: {said}");
        }
    }

    #[test]
    fn without_files_only_numbers_and_the_default_work() {
        let nobody = resolve("", "", String::new).expect("default");
        assert_eq!((nobody.uid, nobody.gid, nobody.additional_gids), (0, 0, vec![0]));
        assert!(resolve("root", "", String::new).is_err());
        assert_eq!((plain_id("root"), plain_id("12"), plain_id("x")), (Some(0), Some(12), None));
    }
}
