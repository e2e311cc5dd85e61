# sockets.sh HOST ECHO CLOSED NAME HTTP_PORT: what a shell can do with the network, and with names.
exec 3<>"/dev/tcp/$1/$2" && echo "connected"
echo "from the shell" >&3
read -r line <&3
echo "echo: $line"
( echo "from a subshell" >&3; read -r line <&3; echo "echo in a subshell: $line" )
exec 3>&-
(exec 3<>"/dev/tcp/$1/$3") 2> /dev/null && echo "closed port: connected" || echo "closed port: refused"
exec 4<>"/dev/tcp/$4/$5" && printf 'GET /shell HTTP/1.1\r\nHost: %s\r\n\r\n' "$4" >&4
while read -r header <&4 && [ "$header" != $'\r' ]; do :; done
read -r body <&4
echo "http: $body"
exec 4>&-
echo "getent hosts: $(getent hosts from-hosts)"
echo "getent, unknown: $(getent hosts unknown.example.com; echo $?)"
trap 'echo "trapped TERM"' TERM
kill -TERM $$
trap 'echo "left with $?"' EXIT
sleep 30 &
kill $!
wait $! 2> /dev/null
echo "killed job: $?"
exit 12
