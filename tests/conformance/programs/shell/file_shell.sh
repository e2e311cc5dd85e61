# file_shell.sh ROOT: what shells do themselves: redirections, directories, patterns, scripts.
root=$1
export LC_ALL=C
complain() { echo "-> $?"; }
exec 2>&1

echo "# directories"
sh -c "cd $root && cat a/small.txt && pwd"
sh -c "cd $root/a/b/c && pwd && cd ../.. && pwd && cat small.txt && cd - && pwd -P"
cd "$root/links/directory" && pwd && pwd -P && cd .. && pwd && cd -P directory && pwd && /bin/pwd
cd "$root" && (cd text/1 && ls && pwd); pwd
cd nothing; complain
cd a/small.txt; complain
cd links/loop-1; complain
cd links/root; pwd; pwd -P; cd "$root"
pushd a/b > /dev/null; dirs; popd > /dev/null; dirs
cd a && readlink /proc/self/cwd && readlink /proc/$$/cwd
cd .. && env -i /bin/sh -c 'pwd; cd a; pwd; cat small.txt'
env -C "$root/text/2" pwd
bash -c 'cd "$0" && exec /bin/pwd' "$root/links/parent"
CDPATH=$root:$root/text cd 3 && pwd; cd "$root"

echo "# redirections"
cat < a/small.txt
cat < links/chain-1
cat < nothing; complain
read -r line < text/3/13.txt; echo "$line"
exec 3< text/3/13.txt
read -r line <&3; read -r line <&3; echo "$line"
sed -n 1p <&3
readlink /proc/self/fd/3; readlink "/proc/$$/fd/3"
bash -c 'cat <&3 | wc -c' 3< a/odd
wc -c < /proc/self/fd/3
(cd /; exec 4<&3; head -c 0 <&4; readlink /proc/self/fd/4)
exec 3<&-
mapfile -t lines < text/0/0.txt; echo "${#lines[@]} ${lines[58]}"
echo "$(< text/1/1.txt)" | md5sum
while read -r number rest; do last=$number; done < text/2/2.txt; echo "$last $rest"
cat <(head -n 1 text/2/2.txt) - <<< "here" 
head -n 1 text/0/0.txt | cat - a/small.txt | tee >(wc -l > /dev/null)
. script/settings && echo "$SETTING"
sh -c '. ./settings && echo "$SETTING"' nothing; complain
cd script && sh -c '. ./settings && echo "$SETTING"'; cd ..

echo "# patterns and tests"
echo */s* text/?/*9.txt
shopt -s globstar nullglob dotglob
echo a/**/*.txt text/**/2?.txt names/*8 nothing/*
set -- many/*; echo "$#" "$1"
for name in links/*; do
    kinds=
    for kind in e f d L r x s; do test "-$kind" "$name" && kinds=$kinds$kind; done
    echo "$name $kinds"
done
[[ text/1/1.txt -ot text/1/6.txt ]]; complain
[[ links/relative -ef a/small.txt ]]; complain
compgen -f links/d | sort

echo "# scripts"
bin/hello one two
"$root/bin/hello" absolute
cd bin && ./hello here; cd ..
sh bin/hello by-name
bin/with-argument x y
bin/python x
bin/plain x
bin/no-interpreter; complain
bin/not-executable; complain
bin/empty; complain
bin; complain
nothing/at/all; complain
PATH=$root/bin:$PATH hello from-the-path
PATH=$root/bin:$PATH env hello from-env
PATH=$root/bin:$PATH bash -c 'type hello; hash hello; hello hashed'
find bin -name hello -exec {} found \;
bin/hello < a/small.txt | cat - a/small.txt
(exec bin/hello executed)
xargs -a a/small.txt bin/hello
