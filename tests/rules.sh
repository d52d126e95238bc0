#!/usr/bin/env bash
# Rules about the sources that no compiler knows. Says every violation, then fails if there was one.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Lines a source file may have. Past it a second thing lives there that wants a file of its own.
longest=600
bad=0
say() { printf 'rules: %s\n' "$*" >&2; bad=1; }

mapfile -t sources < <(git ls-files -co --exclude-standard -- '*.rs' | grep -v '^src/api/generated/')
for file in "${sources[@]}"; do
  [ -f "$file" ] || continue
  case $file in *_tests.rs | */tests/* | tests/*/tests/*) continue ;; esac
  lines=$(wc -l < "$file")
  [ "$lines" -le "$longest" ] || say "$file has $lines lines; $longest is the most: give its second subject a file of its own"
done

# A crate lives in the folder that names it.
while read -r folder; do say "$folder: crates have their sources beside Cargo.toml, not in a folder src"; done \
  < <(git ls-files -co --exclude-standard -- '*/src/lib.rs' 'src/*/src/*' | grep -v '^xtask/' | xargs -r -n1 dirname | sort -u)

# Names that say nothing.
while read -r file; do say "$file: name it for what it holds"; done \
  < <(printf '%s\n' "${sources[@]}" | grep -E '/(utils?|helpers?|common|misc|manager)(\.rs|/)' || true)

# Where packages come from is a matter of each machine's own configuration: cargo's and apt's files here name no host.
while read -r hit; do say "$hit: no package registry's address belongs here"; done \
  < <(git ls-files -co --exclude-standard -- Makefile '.ci/*' '*.sh' '*Cargo.toml' '.cargo/*' '.config/*' | xargs -r grep -nE 'https?://' 2> /dev/null \
    | grep -vE '127\.0\.0\.1|localhost|example\.(com|org|net)|\$' || true)

# Generated code is what the generator makes of its definitions, and nothing else.
if [ -n "$(git ls-files src/api/generated | head -1)" ]; then
  fresh=$(mktemp -d)
  trap 'rm -rf "$fresh"' EXIT
  cp -a src/api/generated "$fresh/before"
  cargo run -q --manifest-path xtask/Cargo.toml --target-dir target/xtask
  diff -rq "$fresh/before" src/api/generated > "$fresh/diff" || while read -r line; do say "generated code differs from its definitions: $line"; done < "$fresh/diff"
  rm -rf src/api/generated && cp -a "$fresh/before" src/api/generated
fi

[ "$bad" = 0 ] || exit 1
echo "rules: all kept by ${#sources[@]} files"
