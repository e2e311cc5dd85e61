# tree.sh PYTHON_PROGRAM... -- GO_PROGRAM...: the root of a process tree: shell, Python, Go. Pipes, jobs, substitution.
python=()
while [ "$1" != -- ]; do python+=("$1"); shift; done
shift
echo "shell: host name $(uname -n), file $(cat /etc/hostname), POD_NAME $POD_NAME"
"${python[@]}" "$@" | sed 's/^/  /'
echo "shell: python ended with ${PIPESTATUS[0]}"
"${python[@]}" "$@" > /dev/null &
wait $!
echo "shell: in the background it ended with $?"
echo "shell: substituted: $("$@" | wc -l)"
(exit 9)
echo "shell: subshell $?"
exit 6
