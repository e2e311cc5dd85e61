// serve_http NAME HOST:PORT: HTTP/1.1, and HTTP/2 with prior knowledge, until SIGTERM. Each request is answered with what
// there was in it; the same lines are printed. /quiet is not noted, /stream answers in parts with a trailer while the
// request goes on.
package main

import (
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"

	"conformance/say"
)

var name = os.Args[1]

func serve(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/stream" {
		stream(w, r)
		return
	}
	body, err := io.ReadAll(r.Body)
	host, _, _ := net.SplitHostPort(r.RemoteAddr)
	local := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	line := fmt.Sprintf("%s: %s %s %s from %s at %s, body %d %x %v, trailer %q\n", name, r.Method, r.URL, r.Proto, host,
		local, len(body), sha256.Sum256(body), err, r.Trailer.Get("X-Last"))
	if r.URL.Path != "/quiet" {
		os.Stdout.WriteString(line)
	}
	w.Header().Set("X-Server", name)
	io.WriteString(w, line)
}

// stream echoes pieces as they come.
func stream(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Trailer", "X-Done")
	w.Header().Set("X-Server", name)
	control := http.NewResponseController(w)
	control.EnableFullDuplex()
	control.Flush()
	buffer := make([]byte, 4096)
	for {
		size, err := r.Body.Read(buffer)
		if size > 0 {
			fmt.Fprintf(w, "%s:%s", name, buffer[:size])
			control.Flush()
		}
		if err != nil {
			break
		}
	}
	w.Header().Set("X-Done", name)
}

func main() {
	say.Limit()
	listener, err := net.Listen("tcp", os.Args[2])
	say.Need("listen", err)
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{Handler: http.HandlerFunc(serve), Protocols: protocols}
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM)
	go server.Serve(listener)
	fmt.Println("listens at", listener.Addr())
	fmt.Println("ready")
	<-end
}
