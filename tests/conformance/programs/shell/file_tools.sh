# file_tools.sh ROOT: what the usual tools make of the tree.
root=$1
export LC_ALL=C TZ=UTC
# Who only looks at a repository changes nothing in it: git would note what it has seen.
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null GIT_OPTIONAL_LOCKS=0
cd "$root" || exit 97
work=$(mktemp -d /tmp/conformance-files-XXXXXX)
trap 'rm -rf "$work"' EXIT
run() { echo "== ${*//$work/WORK}"; "$@" 2>&1; echo "-> $?"; }
piped() { echo "== $1"; eval "$1" 2>&1; echo "-> ${PIPESTATUS[*]}"; }
# The longest path is beyond what most tools do.
visible='find . -path ./longest -prune -o'

run cat a/small.txt a/empty links/chain-1 nothing a links/loop-1
run cat "$root/links/absolute" -- names/-dash 'names/new
line'
piped 'cat names/*-8 names/x* names/w* | od -c'
run head -c 20 text/3/3.txt
run tail -n 2 text/3/38.txt
piped 'tail -c 1000 a/big.bin | sha256sum'
piped 'tac text/1/11.txt | md5sum'
run wc a/small.txt a/big.bin text/2/12.txt
run sha256sum a/* modes/none
run md5sum text/*/1?.txt
run cksum a/odd
run dd if=a/big.bin bs=1000 skip=4000 count=3 of="$work/part" status=none
run cmp -n 3000 "$work/part" a/big.bin 0 4000000
run cmp a/page a/odd
run diff -r text repository
run diff text/1/1.txt text/1/6.txt
piped 'grep -r "line 7 of text 1[0-4]" a links text repository script | sort'
piped 'grep -rlZ needle text | sort -z | tr "\\0" " "'
run grep -c needl text/0/0.txt text/1/6.txt text/2/37.txt
piped 'grep -rn --include="*2.txt" "line 3 " text | sort'
run sed -n '2p;$p' text/4/4.txt
run awk '{ sum += $1 } END { print sum, NR }' text/0/10.txt text/0/15.txt
run sort -rn -o "$work/sorted" text/0/35.txt
run head -n 3 "$work/sorted"
run comm -12 text/1/1.txt text/1/1.txt
run zcat a/compressed.gz -f a/small.txt
piped 'gzip -dc a/compressed.gz | uniq -c'
run stat -c '%n %F %a %u:%g %s %h %Y' a/small.txt links/relative special/* modes/none modes/only* owners/someone times/*
run stat -c '%n %F %a %u:%g %h %Y' modes/* owners/*
run stat -L -c '%n %F' links/relative links/root links/dangling
piped "$visible -printf '%p %y %m %U:%G %n %T@ %l %Y\n' | sort | sha256sum"
piped "$visible -type f -printf '%p %s\n' | sort | sha256sum"
piped "$visible -type f -size +1000k -print | sort"
piped "$visible -samefile a/odd -print | sort"
piped 'find . -maxdepth 2 ! -type d ! -type f ! -type l | sort'
piped '{ find -L cycles -printf "%p %y\n" 2>&1; } | sort'
piped 'find text -newer text/2/12.txt -type f | sort | wc -l'
piped 'find a modes -perm /7000 -o -empty | sort'
piped 'find text -name "*9.txt" -exec tail -qn 1 {} + | sort'
piped 'find text -name "3?.txt" -execdir pwd \; | sort -u'
piped 'find text -type f -print0 | xargs -0 -P4 -n5 sha256sum | sort | sha256sum'
piped 'find . -path "*/d*" -name "d*" | awk "{ if (length > longest) longest = length } END { print longest }"'
# The size of a directory is the affair of its file system.
piped 'ls -lanR --time-style=full-iso a links special modes names owners | sed -E "/^total/d; s/  +/ /g; s/^(d[^ ]*( [0-9]+){3}) [0-9]+/\\1/"'
run ls -F cycles special links/directory/ nothing links/dangling
run ls -b names
piped 'ls many | wc -l; ls -U many | sort | sha256sum; ls -f many | wc -l'
piped 'find a text -type f -print0 | du -b --files0-from=- | sort'
run readlink links/* a/small.txt
run readlink -f links/chain-1 links/dangling links/loop-1 links/directory/../a/./b
run readlink -e links/dangling links/forty/6
run realpath links/chain-1 links/root/srv links/volume ../volume/key
run namei links/chain-3
piped 'tar --sort=name --exclude=./longest --exclude=./special/socket -cf - . | sha256sum'
piped 'tar --sort=name -cf - -C links . | tar -tvf - --full-time | sort'
piped 'tar -cf - text | tar -xf - -C "$work" && diff -r text "$work/text"'
run cp -a modes owners cycles "$work"
piped 'cd "$work" && find modes owners cycles -printf "%p %y %m %U:%G %n %T@ %l\n" | sort; cd "$root"'
run cp -L links/chain-1 links/above-the-root "$work"
run cp --sparse=always a/holes "$work/holes"
run cmp a/holes "$work/holes"
run install -m 711 a/small.txt "$work/installed"
run stat -c '%a %s' "$work/installed"
run cp -r nothing "$work"
run split -b 1M -d a/big.bin "$work/split-"
piped 'cat "$work"/split-* | cmp - a/big.bin'
run git -C repository log --format='%H %an %s' --shortstat
piped 'git -C repository show HEAD^:4/9.txt | md5sum'
run git -C repository status --short
run git -C repository fsck --no-progress
run git clone -q --no-hardlinks "$root/repository" "$work/clone"
piped 'ls "$work/clone"; git -C "$work/clone" rev-parse HEAD'
run sqlite3 -readonly app.db 'SELECT count(*), sum(price), min(name) FROM item' 'PRAGMA integrity_check'
run sqlite3 -readonly "$root/app.db" "SELECT id FROM item WHERE name LIKE 'item 99%' ORDER BY price DESC LIMIT 5"
run test -d links/directory -a -L links/directory -a -p special/fifo -a -S special/socket
run test -s a/empty
run test text/1/1.txt -nt text/1/6.txt
run test a/small.txt -ef links/above-the-root
