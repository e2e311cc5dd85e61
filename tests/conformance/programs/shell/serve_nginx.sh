# serve_nginx.sh NGINX NAME ADDRESS [OPTION]: nginx with two workers, until SIGTERM; says what it notes.
set -u
program=$1 name=$2 address=$3
directory=$(mktemp -d)
cat >"$directory/nginx.conf" <<END
user root;
worker_processes 2;
pid $directory/pid;
error_log $directory/errors;
events { worker_connections 1024; }
http {
    log_format seen '$name: \$request from \$remote_addr at \$server_addr \$server_port, \$request_length bytes: \$status';
    access_log /dev/stdout seen;
    client_body_temp_path $directory/body;
    proxy_temp_path $directory/proxy;
    fastcgi_temp_path $directory/fastcgi;
    uwsgi_temp_path $directory/uwsgi;
    scgi_temp_path $directory/scgi;
    client_max_body_size 10m;
    server {
        listen $address${4:+ $4};
        add_header X-Server $name;
        location /quiet { access_log off; return 200 "$name\n"; }
        location / { return 200 "$name: \$request_method \$uri \$server_protocol from \$remote_addr at \$server_addr\n"; }
    }
}
END
# With its shell it stays in the process group of the test.
"$program" -c "$directory/nginx.conf" -e "$directory/errors" -g 'daemon off;' &
master=$!
until [ -s "$directory/pid" ]; do sleep 0.05; done
trap 'kill -QUIT $master' TERM
echo ready
wait
wait
grep -E 'alert|crit|emerg' "$directory/errors"
rm -r "$directory"
