# serve_curl.sh HOST PORT WAY...: a server's answers to curl.
set -u
host=$1 port=$2
shift 2
case $host in *:*) host="[$host]" ;; esac
url=http://$host:$port
ask() {
    curl --silent --show-error --max-time 30 --noproxy '*' "$@" || echo "curl: $?"
}

for way; do
    echo "# $way"
    case $way in
        get) ask "$url/one" "$url/two?query=1" "$url/three" ;;
        head) ask --head "$url/head" | grep -i '^x-server\|^HTTP' | tr -d '\r' ;;
        post) ask --data-binary "some text" "$url/post" ;;
        large) head -c 3000000 /dev/zero | ask --request PUT --data-binary @- "$url/large" ;;
        chunked) head -c 300000 /dev/zero | ask --header 'Transfer-Encoding: chunked' --upload-file - "$url/chunked" ;;
        expect) head -c 5000 /dev/zero | ask --header 'Expect: 100-continue' --data-binary @- "$url/expect" ;;
        close) ask --header 'Connection: close' "$url/close" ;;
        http1.0) ask --http1.0 "$url/old" ;;
        parallel) ask --parallel --parallel-immediate --parallel-max 20 "$url/parallel/[1-60]" | sort ;;
        http2) ask --http2-prior-knowledge "$url/h2/one" "$url/h2/two" --data-binary "body of h2" ;;
        large2) head -c 3000000 /dev/zero | ask --http2-prior-knowledge --data-binary @- "$url/h2/large" ;;
        parallel2) ask --http2-prior-knowledge --parallel --parallel-max 20 "$url/h2/parallel/[1-60]" | sort ;;
    esac
done
