# file_exact.sh ROOT: what only a file system can show: devices, set-ID bits, hard links, attributes, blocks, any offset.
cd "$1" || exit 97
export LC_ALL=C TZ=UTC
exec 2>&1
stat -c '%n %F %a %u:%g %s %h %y %t:%T %b %B %o' set-id null disk hard-1 hard-2 below/hard-3 attributes
stat -c '%n %s %b %B %o' large ../data/a/* ../data/links/* ../data/special/*
stat -f -c '%s %S %b %c %l' . large ../volume ../volume/key
du -s below ../data/text ../volume large
du -s --count-links below hard-1 hard-2
ls -lsan ../data/a | head -n 1
find . -samefile below/hard-3 | sort
find . -links +2 -type f | sort
stat -c %i hard-1 hard-2 below/hard-3 | sort -u | wc -l
[ hard-1 -ef below/hard-3 ]; echo $?
tar -cf - hard-1 hard-2 below set-id | tar -tvf - --full-time
work=$(mktemp -d /tmp/conformance-files-XXXXXX)
cp -a attributes below set-id hard-1 hard-2 "$work"
stat -c '%a %h' "$work/set-id" "$work/hard-2"
python3 - "$PWD" "$work" << 'END'
import hashlib
import os
import sys

for directory in sys.argv[1:]:
    for name in ("attributes", "below", "set-id"):
        path = os.path.join(directory, name)
        values = {each: hashlib.sha256(os.getxattr(path, each)).hexdigest()[:8] for each in sorted(os.listxattr(path))}
        with open(path) if name == "attributes" else open("/dev/null") as file:
            print(name, values, len(os.listxattr(file.fileno())))
END
rm -r "$work"
tail -c 5 large | od -c
head -c 5 large; echo
tail -c +10737418230 large | wc -c
dd if=large bs=1M skip=5120 count=1 status=none | od -c | head -n 3
cmp -i 5368709120:1000 -n 4096 large large
