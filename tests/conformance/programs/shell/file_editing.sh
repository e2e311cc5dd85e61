# file_editing.sh DIRECTORY: what the usual tools and editors do to files.
export LC_ALL=C TZ=UTC
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null
export GIT_AUTHOR_NAME=A GIT_AUTHOR_EMAIL=a@example.com GIT_AUTHOR_DATE='1600000000 +0000'
export GIT_COMMITTER_NAME=C GIT_COMMITTER_EMAIL=c@example.com GIT_COMMITTER_DATE='1600000000 +0000'
cd "$1" || exit 97
exec 2>&1
umask 022
run() { echo "== $*"; "$@"; echo "-> $?"; }
data=/srv/data

echo "# redirections"
echo one > file; echo two >> file; cat file
set -C; echo three > file; echo "-> $?"; echo three >| file; set +C
cat > here <<< "a here document"
{ echo to both; echo and more >&2; } > both 2>&1
exec 3<> file; echo -n THREE >&3; read -r rest <&3; echo "rest: '$rest'"; exec 3>&-
cat file here both
(umask 077; : > private); (umask 0; : > public); stat -c '%n %a' private public
printf 'line %d\n' {1..500} | tee many-lines > copy-of-lines; cmp many-lines copy-of-lines && echo equal
: > nothing/x; echo "-> $?"

echo "# files"
run touch -d '2001-02-03 04:05:06.789' old
run touch -r old as-old
run stat -c '%n %y' old as-old
run cp $data/a/odd odd
run cp -a $data/modes $data/owners $data/cycles $data/special /srv/exact/below /srv/exact/attributes .
mv below/* .
run cp --reflink=auto odd odd-2
run mv odd-2 moved
run mv moved below/
run mv -T cycles/one cycles/three
run mv -n old as-old
run ln -s file link
run ln -sf here link
run ln file hard
run ln -T file hard
run mkdir -p -m 750 deep/er/est
run mkdir deep
run rmdir deep
run rmdir -p deep/er/est
run rm -r cycles special
run rm nothing
run rm -f nothing
run install -D -m 640 $data/a/small.txt installed/here/small.txt
run truncate -s 12345 truncated
run truncate -s -45 truncated
run chmod -R u+x,go-rwx below
run chmod u-x,a=r file
run chown 12:34 here
run chown -h 56:78 link
run dd if=$data/a/odd of=odd bs=1000 seek=3 count=2 conv=notrunc status=none
run sha256sum odd
run mkfifo fifo
mktemp -u x-XXXX > /dev/null && temporary=$(mktemp ./x-XXXXXX) && rm "$temporary" && echo made and removed
run shred -u -n 1 copy-of-lines
run test -e copy-of-lines
run split -n 4 odd part-
cat part-* | cmp - odd && echo equal

echo "# trees"
run cp -r $data/text text
run cp -a $data/links links
run mv text texts
run cp -al texts linked
run find texts -name '3*.txt' -delete
find linked -links 1 | sort
find texts -type f -print0 | xargs -0 -P4 -n3 sed -i 's/line/LINE/'
grep -rc LINE texts | sort | md5sum
run tar -xf <(tar -cf - -C $data text repository) -C .
run tar --sort=name -cf archive.tar texts
run tar -rf archive.tar --sort=name text/1
run tar -tf archive.tar --wildcards '*1.txt'
run diff -rq text $data/text
run gzip -n archive.tar
run gzip -t archive.tar.gz
rm archive.tar.gz
run rm -r text

echo "# editors"
vim=$(command -v vim || command -v vim.tiny)
cp $data/text/1/1.txt edited
chmod 640 edited; chown 12:34 edited
run sed -i 's/line 1/LINE ONE/; 5d' edited
run sed -i.orig '1i first' edited
run sed -i '$a last' link
ed -s edited <<< $'2s/.*/by ed/\n$a\nappended by ed\n.\nw\nq'; echo "-> $?"
$vim -es -u NONE -i NONE -c 'set nomore' -c '%s/of text/OF TEXT/' -c 'normal Gonew line' -c wq edited < /dev/null; echo "-> $?"
$vim -es -u NONE -i NONE -c 'set backup backupcopy=no' -c '1d' -c wq edited < /dev/null; echo "-> $?"
$vim -es -u NONE -i NONE -c 'set backupcopy=yes noswapfile' -c '1d' -c 'w written-by-vim' -c wq link < /dev/null; echo "-> $?"
awk '{ print > ("by-awk-" NR % 3) }' edited
sort -o edited edited
run stat -c '%n %F %a %u:%g %s %h' edited edited.orig edited~ link written-by-vim by-awk-*
run sha256sum edited edited~ by-awk-1

echo "# databases and repositories"
run sqlite3 new.db 'CREATE TABLE t (a, b); INSERT INTO t SELECT value, value * 2 FROM generate_series(1, 500)' 'SELECT count(*), sum(b) FROM t'
run sqlite3 new.db 'UPDATE t SET a = a + 1; DELETE FROM t WHERE b > 900; VACUUM; PRAGMA integrity_check; SELECT count(*) FROM t'
run git init -q -b main own
cp -r texts own
run git -C own add .
run git -C own commit -q -m one
run git -C own mv texts renamed
echo more >> own/renamed/0/0.txt
run git -C own commit -q -a -m two
run git -C own gc -q
run git -C own checkout -q HEAD^
run git -C own fsck --no-progress
run git -C own log --all --format='%H %s' --shortstat
run git -C repository status --short
run git -C repository reset -q --hard HEAD^
ls repository
# What says when this was run, or where it was.
rm -r own repository new.db
